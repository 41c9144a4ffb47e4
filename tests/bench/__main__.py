"""`python -m tests.bench`: measure the figures, print them beside their goals, keep them in the table `bench`.

One BLAS thread, set before torch loads. Exit code 0 whether goals are met or missed; 2 for bad input. In reading order:

- `row.py`          one measured value beside its goal
- `synthetic.py`    seeded weights and updates in the regimes of the papers
- `shapes.py`       which matrices a model has; `checkpoints.py` writes them as a Hugging Face folder
- `sizes.py`        how big everything is, in full and with --quick
- `engine.py`       the rows of one snapshot; `measuring.py` the default measurement, as `opd measure` does it
- `agreement.py`    whether two measurements of the same weights agree, within the bounds they store
- `plain.py`        the published recipe and the single factorizations it is made of
- `environment.py`  packages and processes of other tools: `peers.py` (WeightWatcher, modeldelta), `diffract.py`, `trl/`
- `workers.py`      measuring processes
- `catalog.py`      the figures; `figures/` has one function for each
- `ledger.py`       the rows in the table `bench`
- `paired.py`       the default measurement by an older commit and by this one: `make bench-against COMMIT=...`
"""

import argparse
import os
import sys
from collections.abc import Sequence

from pipelines.runs.cluster.attach import THREADS
from pipelines.statistics.numbers import align_columns
from pipelines.store.objects import Store, default_uri, normalise
from tests.bench.catalog import Figure, list_figures
from tests.bench.sizes import FULL, QUICK

HEADING = ["case", "quantity", "value", "goal", "", "note"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    os.environ.update(THREADS)
    import torch

    from tests.bench.ledger import describe_run, write_rows

    figures = list_figures()
    options = parser(figures).parse_args(arguments)
    torch.set_num_threads(1)
    store = Store(normalise(options.out) if options.out else default_uri())
    write = bool(options.out) or not options.quick
    if write:
        try:
            store.require_writable()
        except ValueError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
    run = describe_run()
    print("\n".join(f"{name:<8} {text}" for name, text in run.items()))
    if options.quick:
        print("small sizes: goals are those of the full ones")
    for number in sorted(set(options.figure)) or list(figures):
        print(f"\nfigure {number}, {figures[number].title}", flush=True)
        rows = figures[number].measure(QUICK if options.quick else FULL)
        print(align_columns([HEADING, *(row.cells() for row in rows)]), flush=True)
        if write:
            write_rows(store, rows, run)
    if write:
        print(f'\nkept in {store.uri}: scan("bench").filter(commit={run["commit"]!r})')
    return 0


def parser(figures: dict[int, Figure]) -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="python -m tests.bench", description=(__doc__ or "").partition("\n")[0])
    top.epilog = 'Some figures alone: make bench FIGURES="2 10", which is python -m tests.bench --figure 2 10'
    titles = "; ".join(f"{number}: {figure.title}" for number, figure in figures.items())
    top.add_argument(
        "--figure",
        type=int,
        nargs="+",
        action="extend",
        default=[],
        choices=figures,
        metavar="N",
        help=f"only these; {titles}",
    )
    top.add_argument("--quick", action="store_true", help="small sizes, as a smoke test; kept only where --out says")
    top.add_argument("--out", metavar="URI", help="the store to write to (default: OPD_STORE or .opd/store)")
    return top


if __name__ == "__main__":
    sys.exit(main())
