"""The bench: what one snapshot costs and how exact it is, beside the recipes and tools in use. `make bench`.

In reading order:

- `row.py`          one measured value beside its goal
- `synthetic.py`    seeded weights and updates in the regimes of the papers
- `shapes.py`       which matrices a model has; `checkpoints.py` writes them as a Hugging Face folder
- `sizes.py`        how big everything is, in full and with --quick
- `truth.py`        the float64 reference; `engine.py` the door to the rows of one snapshot
- `measuring.py`    the default measurement, from files to tables, as `opd measure` does it
- `agreement.py`    whether two measurements of the same weights agree, within the bounds they store
- `plain.py`        the published recipe and the single factorizations it is made of
- `environment.py`  another program's packages, and its processes
- `peers.py`        WeightWatcher and modeldelta, in an environment of their own; `diffract.py` diffract-core in another
- `seconds.py`      CPU and device seconds; `load.py` how busy the machine was with something else
- `worker.py`       the program of a measuring process; `workers.py` starts it
- `trl/`            TRL's training steps
- `figures/`        one function per figure
- `ledger.py`       the rows in the table `bench`
- `__main__.py`     the command
- `paired.py`       the default measurement by an older commit and by this one. `make bench-against COMMIT=...`
"""
