"""Does early locking go with what a run learns?

`correlation.py` (coefficients, interval, p-value), `predictions.py` (the table `predictions`), `words.py` (terminal).
"""
