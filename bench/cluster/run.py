#!/usr/bin/env python3
import pathlib, sys
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from cluster import check, processes
processes.raise_on_signals()
sys.exit(0 if check.run() else 1)
