"""Poseidon: a script for one machine, trained on many."""
