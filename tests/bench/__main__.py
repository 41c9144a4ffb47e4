"""`python -m tests.bench`: measure the figures, print them beside their goals, keep them in the table `bench`.

One BLAS thread, set before torch loads. Exit code 0 whether goals are met or missed; 2 for bad input. In reading order:

- `row.py`          one measured value beside its goal
- `synthetic.py`    seeded weights and updates in the regimes of the papers
- `shapes.py`       which matrices a model has; `checkpoints.py` writes them as a Hugging Face folder
- `sizes.py`        how big everything is, in full and with --quick
- `engine.py`       the rows of one snapshot; `measuring.py` the default measurement, as `opd measure` does it
- `agreement.py`    whether two measurements of the same weights agree, within the bounds they store
- `plain.py`        the published recipe and the single factorizations it is made of
- `environment.py`  another program's packages and processes: `peers.py` (WeightWatcher, modeldelta), `diffract.py`, `trl/`
- `workers.py`      measuring processes
- `catalog.py`      the figures; `figures/` has one function for each
- `ledger.py`       the rows in the table `bench`
- `paired.py`       the default measurement by an older commit and by this one: `make bench-against COMMIT=...`
"""

import argparse
import os
import sys
from collections.abc import Sequence

from pipelines.progress import Board
from pipelines.runs.cluster.attach import THREADS
from pipelines.statistics.numbers import aligned
from pipelines.store.objects import Store, default_uri, normalise
from tests.bench.catalog import Figure, figures
from tests.bench.row import Row
from tests.bench.sizes import FULL, QUICK, Sizes

HEADING = ["case", "quantity", "value", "goal", "", "note"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    os.environ.update(THREADS)
    import torch

    from tests.bench.ledger import keep, where

    known = figures()
    given = parser(known).parse_args(arguments)
    torch.set_num_threads(1)
    store = Store(normalise(given.out) if given.out else default_uri())
    kept = bool(given.out) or not given.quick
    if kept:
        try:
            store.require_writable()
        except ValueError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
    facts = where()
    print("\n".join(f"{name:<8} {text}" for name, text in facts.items()))
    if given.quick:
        print("small sizes: goals are those of the full ones")
    numbers = sorted(set(given.figure)) or list(known)
    board = Board({str(number): known[number].work for number in numbers})
    for number in numbers:
        rows = measure(board, number, known[number], QUICK if given.quick else FULL)
        board.say(f"\nfigure {number}, {known[number].title}\n{table(rows)}")
        if kept:
            keep(store, rows, facts)
    board.close()
    if kept:
        print(f'\nkept in {store.uri}: scan("bench").filter(commit={facts["commit"]!r})')
    return 0


def parser(known: dict[int, Figure]) -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="python -m tests.bench", description=(__doc__ or "").partition("\n")[0])
    top.epilog = 'Some figures alone: make bench FIGURES="2 10", which is python -m tests.bench --figure 2 10'
    titles = "; ".join(f"{number}: {figure.title}" for number, figure in known.items())
    top.add_argument(
        "--figure",
        type=int,
        nargs="+",
        action="extend",
        default=[],
        choices=known,
        metavar="N",
        help=f"only these; {titles}",
    )
    top.add_argument("--quick", action="store_true", help="small sizes, as a smoke test; kept only where --out says")
    top.add_argument("--out", metavar="URI", help="the store to write to (default: OPD_STORE or .opd/store)")
    return top


def measure(board: Board, number: int, figure: Figure, sizes: Sizes) -> list[Row]:
    """One figure, with its progress on the board."""
    item = str(number)
    rows = figure.measure(sizes, lambda share, words: board.update(item, share, f"figure {number}: {words}"))
    board.update(item, 1.0)
    return rows


def table(rows: Sequence[Row]) -> str:
    return aligned([HEADING, *(row.cells() for row in rows)])


if __name__ == "__main__":
    sys.exit(main())
