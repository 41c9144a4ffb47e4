"""Correlate early locking with the outcome of runs.

`correlation.py` (coefficients, interval, p-value), `predictions.py` (the table `predictions`), `text.py` (terminal).
"""
