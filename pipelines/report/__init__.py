"""From tables to a page a person reads: verdicts, headline numbers, figures and the words around them.

In reading order:

- `arms.py`       the arms that are put beside the paper, with one fixed colour each
- `suites.py`     the arms of the other suites, in groups that say what differs
- `metrics.py`    the scalars a run is summarised by, declared with the paper's values
- `samples.py`    one number per run and metric, read from the tables
- `intervals.py`  the 95 % interval over seeds that decides, and the bootstrap beside it
- `power.py`      what interval the evaluations can give, and what difference they can show
- `claims/`       the statements that are tested, with their controls: `paper.py`, `controlled.py`, `ours.py`
- `verdicts.py`   the statements decided, one row each
- `headline.py`   metrics by arms, numeric and as text, Markdown or HTML cells
- `grids.py`      the same for the arms of the other suites
- `means.py`      unweighted and parameter-weighted means, by role and by layer
- `regime/`       which of the core arms a trajectory is nearest to, at equal norm
- `bands.py`      between which guard-rails a run of a kind stays
- `prediction/`   whether early locking predicts accuracy
- `scaling.py`    how the diagnostics move with the model's size and family
- `inventory.py`  what is in the tables: runs, evaluations, values that do not exist
- `bounds.py`     how large the stored error bounds are
- `series.py`     what the charts draw, and `beside.py`: beside the null that never turns
- `figures.py`    charts, and their SVG and PNG; `adaptive.py`: SVG that follows a dark or a light page, by `tone.py`
- `choices.py`    the roles, layers and cuts that a reader chooses of a chart
- `captions.py`   what each chart means, how it is computed and what to be careful about
- `paper/`        the paper's table and figures, item by item
- `prose.py`      sentences generated from verdict rows; `controls.py`: what controls say about one item;
                  `computed.py`: how its numbers were computed
- `page.py`       the self-contained HTML page of a study, built with `findings.py`, `ledger.py`, `exhibits.py`,
                  `markup.py`, `page.css` and `page.js`, without which it is whole
- `imported.py`   the page of an imported trajectory, with its regime first

To test another statement, add a `Claim` (and, if it needs one, a `Metric`); the page follows.
"""
