"""Figure 10: CPU seconds of the default measurement of the ten matrices, per checkpoint, beside what others take.

Ours is `opd measure` without options (`measuring`): all tables of `snapshots` checkpoints from files to tables. One
matrix of each shape (`shapes.counted`) is measured and counted as often as the shape occurs. Per checkpoint is a
measurement over its number of checkpoints, without the base factors of W0 (base apart) and with them.

The others are given the same files. A further snapshot is what they take for one more snapshot of the same W0:

    published recipe   as published it keeps nothing: two f32 SVDs and the singular values of W_t - W0; and the same
                       with W0's SVD kept, which nobody publishes and is harder to beat
    diffract-core      its session keeps W0's SVD
    weightwatcher, modeldelta   keep nothing

A round measures ours and all others once, one after the other; every ratio is within a round, and the median of the
rounds is shown. The tables by themselves are measured once, with base factors from the store: each reads W0 and W_t and
subtracts them again, and several compute the same spectrum.
"""

import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from statistics import median

from pipelines.store.objects import Store
from tests.bench import diffract, measuring, peers, plain
from tests.bench.catalog import say
from tests.bench.checkpoints import refs, write_trajectory
from tests.bench.environment import Absent
from tests.bench.row import Row, row
from tests.bench.seconds import cpu
from tests.bench.shapes import counted
from tests.bench.sizes import Sizes

GOAL = 3.0  # times cheaper than the published recipe and than diffract-core, per further snapshot
BASE, WHOLE = "base factors", "default"
PUBLISHED, KEPT = "published recipe", "published recipe, W0's SVD kept"
FURTHER = f"{diffract.NAME}, further snapshot"
GOALS = {PUBLISHED: GOAL, KEPT: GOAL, FURTHER: GOAL}

Seconds = Mapping[str, float]  # CPU seconds by what was done


def measure_default(sizes: Sizes) -> list[Row]:
    shapes, absent = counted(sizes.ten), dict[str, str]()
    with tempfile.TemporaryDirectory() as folder:
        trajectories = [
            (write_trajectory(Path(folder) / str(place), [shape], "rl", sizes.snapshots), count)
            for place, (shape, count) in enumerate(shapes)
        ]

        def store(turn: int, place: int) -> Store:
            return Store(f"file://{folder}/store-{turn}-{place}")

        def add_up(turn: int, measure: Callable[[Store, list[Path]], Iterator[tuple[str, float]]]) -> Seconds:
            total = defaultdict[str, float](float)
            for place, (paths, count) in enumerate(trajectories):
                for what, seconds in measure(store(turn, place), paths):
                    total[what] += count * seconds
            return total

        rounds = [
            add_up(turn, lambda store, paths: _measure_all(store, paths, sizes, absent))
            for turn in range(sizes.repeats)
        ]
        tables = add_up(0, _measure_tables)
    about = f"rl, {sizes.snapshots} checkpoints, {len(sizes.ten)} matrices from {len(shapes)} measured"
    return [
        *compare_rounds(rounds, sizes.snapshots, absent, about),
        *_table_rows(tables, rounds[0], sizes.snapshots),
    ]


def _measure_all(store: Store, paths: list[Path], sizes: Sizes, absent: dict[str, str]) -> Iterator[tuple[str, float]]:
    """CPU seconds of one matrix: of all checkpoints by ours, of one by others; `absent` gets reasons."""
    say("the default measurement")
    ours = measuring.measure(store, paths, "default")
    yield from ((WHOLE, ours.seconds), (BASE, ours.base))
    say(PUBLISHED)
    before, after = (next(iter(refs(path).values())) for path in paths[:2])
    base = cpu(lambda: plain.prepare(before.read()))
    rest = cpu(lambda: plain.compare(base.result, after.read(), sizes.k))
    yield from ((PUBLISHED, base.seconds + rest.seconds), (KEPT, rest.seconds))
    for peer, pin in peers.PINS.items():
        name = f"{peer} {pin}"
        if name not in absent:
            say(name)
            try:
                yield name, peers.measure(peer, peers.TOOLS.python(sizes.install), *paths[:2])
            except Absent as reason:
                absent[name] = str(reason)
    if FURTHER not in absent:
        say(diffract.NAME)
        try:
            spent = diffract.measure(diffract.TOOL.python(sizes.install), paths[0], paths[1:3])
            yield from ((f"{diffract.NAME}, W0 and a snapshot", spent.pair), (FURTHER, spent.further))
        except Absent as reason:
            absent[FURTHER] = str(reason)


def compare_rounds(rounds: list[Seconds], snapshots: int, absent: Mapping[str, str], about: str) -> list[Row]:
    """Rows of cost and of ratios, medians of the rounds."""
    note = f"median of {len(rounds)}" if len(rounds) > 1 else "one run"
    apart, included = "base apart", "base included"
    ours = {
        apart: lambda spent: (spent[WHOLE] - spent[BASE]) / snapshots,
        included: lambda spent: spent[WHOLE] / snapshots,
    }

    def over(cost: Callable[[Seconds], float]) -> float:
        return median(map(cost, rounds))

    rows = [
        row(10, WHOLE, "CPU once per base", over(lambda spent: spent[BASE]), "s", note=f"{note}; {about}"),
        *(row(10, WHOLE, f"CPU per checkpoint, {how}", over(cost), "s") for how, cost in ours.items()),
    ]
    for what in (what for what in rounds[0] if what not in (BASE, WHOLE)):
        rows.append(row(10, what, "CPU per snapshot", over(lambda spent, what=what: spent[what]), "s", note=note))
        for how, cost in ours.items():
            ratio = over(lambda spent, what=what, cost=cost: spent[what] / cost(spent))
            rows.append(
                row(10, what, f"over ours, {how}", ratio, "x", least=GOALS.get(what) if how == included else None)
            )
    return rows + [
        row(10, what, f"over ours, {included}", None, "x", least=GOALS.get(what), note=reason)
        for what, reason in absent.items()
    ]


def _measure_tables(store: Store, paths: list[Path]) -> Iterator[tuple[str, float]]:
    """CPU seconds of each table by itself, over all checkpoints; the store holds the base factors."""
    for table in measuring.DEFAULT.tables:
        say(f"{table} alone")
        yield table, measuring.measure(store, paths, table, (table,)).snapshots


def _table_rows(tables: Seconds, first: Seconds, snapshots: int) -> list[Row]:
    whole = first[WHOLE] - first[BASE]
    rows = []
    for table, seconds in tables.items():
        note = f"{seconds / whole:.0%} of the default measurement, base apart; one run"
        rows.append(row(10, f"{table} alone", "CPU per checkpoint", seconds / snapshots, "s", note=note))
    note = "above 1: reading, W_t - W0 and spectra are shared between tables"
    total = sum(tables.values()) / whole
    return [*rows, row(10, "all tables alone", "their sum over the default measurement", total, "x", note=note)]
