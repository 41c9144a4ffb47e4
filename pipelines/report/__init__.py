"""From tables to a page a person reads: verdicts, headline numbers, figures and the words around them.

In reading order:

- `arms.py`       the arms that are compared, with one fixed colour each, and those of the suite objectives
- `metrics.py`    the scalars a run is summarised by, declared with the paper's values
- `samples.py`    one number per run and metric, read from the tables
- `intervals.py`  the 95 % interval over seeds
- `claims.py`     the statements that are tested, as a list
- `verdicts.py`   the statements decided, one row each
- `headline.py`   metrics by arms, numeric and as text, Markdown or HTML cells
- `objectives.py` the arms of the suite objectives beside OPD and RLVR
- `inventory.py`  what is in the tables: runs, evaluations, values that do not exist
- `bounds.py`     how large the stored error bounds are
- `series.py`     what the charts draw, and `beside.py`: beside the null that never turns
- `figures.py`    charts, and their SVG and PNG
- `captions.py`   what each chart means, how it is computed and what to be careful about
- `prose.py`      sentences generated from verdict rows
- `page.py`       the self-contained HTML page, built with `markup.py` and `page.css`

To test another statement, add a `Claim` (and, if it needs one, a `Metric`); the page follows.
"""
