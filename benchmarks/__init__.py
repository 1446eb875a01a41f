"""Measurements, each a script: `python -m benchmarks.startup` in the checkout's folder.

A package, because a script run by its path puts this folder first in the import path, where `select.py` would hide
Python's own `select` (and with it `subprocess` and `torch`); each script therefore corrects the path when it has no package.
"""
