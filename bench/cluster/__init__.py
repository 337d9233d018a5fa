"""Measures data-parallel training systems on hosts with shaped links: network namespaces on one Linux bridge. See run.py."""
