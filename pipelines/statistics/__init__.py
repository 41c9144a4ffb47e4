"""From tables to numbers that decide: one value per run, intervals over seeds, verdicts, headline values.

In reading order:

- `stories.py`    the story of a study, with the defaults of a study that has none
- `metrics.py`    the scalars that summarise a run
- `samples.py`    one number per run and metric, read from the tables; `copies.py`, `exclusions.py`: runs left out
- `intervals.py`  the 95 % interval over seeds that decides, and the bootstrap beside it; `coverage.py` simulates it
- `power.py`      what interval the evaluations can give, and what difference they can show
- `forms.py`      the forms of statements; `claims.py`: those of a study that brings none
- `verdicts.py`   the statements decided, one row each
- `headline.py`   metrics by arms; `grids.py`: of the other suites; `means.py`: by weighting, role and layer
- `scaling.py`    how the diagnostics move with the size of the model
- `series.py`     values over training, and `beside.py`: beside the null that never turns
- `inventory.py`  what is in the tables; `bounds.py`: how exact it is; `computed.py`: how it was computed
- `numbers.py`    numbers as text
"""
