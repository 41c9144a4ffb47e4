"""Decide the regime of a trajectory: SFT-like, OPD-like, RLVR-like, or `cannot tell`.

`diagnostics.py` (what is compared), `profile.py` (a trajectory as curves over its own norm), `references.py` (the runs
of the three arms at one budget, their spread and their confusion), `judging.py` (the verdict), `rows.py` (the table
`regime`), `verdict_text.py` (the terminal).
"""
