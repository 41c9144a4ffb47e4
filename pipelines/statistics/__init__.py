"""Statistics of a study: one value per run, intervals over seeds, verdicts and headline values.

In reading order:

- `stories.py`    loads the story of a study and fills in defaults
- `metrics.py`    the scalars that summarise a run
- `samples.py`    one number per run and metric, read from the tables; `copies.py`, `exclusions.py`: runs left out
- `intervals.py`  the 95 % Student-t interval and the bootstrap over seeds; `coverage.py` simulates their coverage
- `power.py`      the interval and the detectable difference of an accuracy
- `forms.py`      makes claims of each form; `claims.py`: the default claims
- `verdicts.py`   decides every claim, one row each
- `headline.py`   metrics by arms; `grids.py`: of the other suites; `means.py`: by weighting, role and layer
- `scaling.py`    how the diagnostics move with the size of the model
- `series.py`     values over training; `null_values.py`: the same for the null of the update
- `inventory.py`  lists what the tables contain; `bounds.py`: error bounds; `table_summaries.py`: method and precision
- `numbers.py`    numbers as text
"""
