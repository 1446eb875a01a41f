"""Measurements, each a script: `python -m benchmarks.startup` in the checkout's folder.

A package, because a script that is run by its path puts this folder first in the import path, where `select.py` would
hide Python's own `select` (and with it break `subprocess` and `torch`). Each script therefore puts the checkout's
folder there instead when it has no package.
"""
