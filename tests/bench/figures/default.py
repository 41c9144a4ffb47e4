"""Figure 10: CPU seconds of the default measurement of the ten matrices, per checkpoint, beside what others take.

Ours is `opd measure` without options (`measuring`): all tables of `snapshots` checkpoints from files to tables. One
matrix of each shape (`shapes.counted`) is measured and counted as often as the shape occurs; `in one call` is the whole
set, measured once as it is. Per checkpoint is a measurement over its number of checkpoints, without the base factors of
W0 (base apart) and with them.

The others are given the same files. A further snapshot is what they take for one more snapshot of the same W0:

    published recipe   as published it keeps nothing: two f32 SVDs and the singular values of W_t - W0; and the same
                       with W0's SVD kept, which nobody publishes and is harder to beat
    diffract-core      its session keeps W0's SVD
    weightwatcher, modeldelta   keep nothing

A round measures ours and all others once, one after the other; every ratio is within a round, and the median of the
rounds is shown. No round begins after PATIENCE CPU seconds. The tables by themselves are measured once, with
base factors from the store: each reads W0 and W_t and subtracts them again, and several compute the same spectrum.
"""

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from statistics import median

from pipelines.store.objects import Store
from tests.bench import diffract, measuring, peers, plain
from tests.bench.catalog import Tell
from tests.bench.checkpoints import refs, write_trajectory
from tests.bench.environment import Absent, Environment
from tests.bench.row import Row, row
from tests.bench.seconds import cpu
from tests.bench.shapes import counted
from tests.bench.sizes import Sizes

GOAL = 3.0  # times cheaper than the published recipe and than diffract-core, per further snapshot
PATIENCE = 600.0  # CPU seconds
BASE, WHOLE = "base factors", "default"
PUBLISHED, KEPT = "published recipe", "published recipe, W0's SVD kept"
FURTHER = f"{diffract.NAME}, further snapshot"
GOALS = {PUBLISHED: GOAL, KEPT: GOAL, FURTHER: GOAL}

Seconds = dict[str, float]  # CPU seconds by what was done


def default(sizes: Sizes, tell: Tell) -> list[Row]:
    chosen, absent, rounds = counted(sizes.ten), dict[str, str](), list[Seconds]()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tell(0.0, "writing checkpoints")
        trajectories = [
            (write_trajectory(folder / str(place), [shape], "rl", sizes.snapshots), count)
            for place, (shape, count) in enumerate(chosen)
        ]
        begun = _used()
        for turn in range(sizes.repeats):
            if _used() - begun > PATIENCE:
                break
            found: Seconds = {}
            for place, (paths, count) in enumerate(trajectories):
                say = partial(tell, 0.05 + 0.65 * (turn + place / len(chosen)) / sizes.repeats)
                for what, seconds in _round(_store(folder, f"{turn}-{place}"), paths, sizes, absent, say):
                    found[what] = found.get(what, 0.0) + count * seconds
            rounds.append(found)
        apart: Seconds = {}
        for place, (paths, count) in enumerate(trajectories):
            say = partial(tell, 0.7 + 0.15 * place / len(chosen))
            for table, seconds in _apart(_store(folder, f"0-{place}"), paths, say):
                apart[table] = apart.get(table, 0.0) + count * seconds
        tell(0.85, "the whole set in one call")
        whole = _in_one_call(folder, sizes)
    about = f"rl, {sizes.snapshots} checkpoints, {len(sizes.ten)} matrices from {len(chosen)} measured"
    rows = compared(10, rounds, sizes.snapshots, absent, about, GOALS)
    return [*rows, *_tables(apart, rounds[0], sizes.snapshots), whole]


def _used() -> float:
    """CPU seconds of this process and of those it has waited for."""
    return sum(os.times()[:4])


def _round(
    store: Store, paths: list[Path], sizes: Sizes, absent: dict[str, str], say: Callable[[str], None]
) -> Iterator[tuple[str, float]]:
    """CPU seconds of one matrix: of all checkpoints by ours, of one by others."""
    say("the default measurement")
    ours = measuring.measure(store, paths, "default")
    yield from ((WHOLE, ours.seconds), (BASE, ours.base))
    yield from others(paths, sizes, absent, say)


def others(
    paths: list[Path], sizes: Sizes, absent: dict[str, str], say: Callable[[str], None]
) -> Iterator[tuple[str, float]]:
    """CPU seconds of what others take for the first snapshot of one matrix; `absent` gets the reasons of the rest."""
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
                python = _python(peers.TOOLS, sizes, say)
                yield name, peers.measure(peer, python, *paths[:2]).seconds
            except Absent as reason:
                absent[name] = str(reason)
    if FURTHER not in absent:
        say(diffract.NAME)
        try:
            spent = diffract.measure(_python(diffract.TOOL, sizes, say), paths[0], paths[1:3])
            yield from ((f"{diffract.NAME}, W0 and a snapshot", spent.pair), (FURTHER, spent.further))
        except Absent as reason:
            absent[FURTHER] = str(reason)


def compared(
    figure: int,
    rounds: list[Seconds],
    snapshots: int,
    absent: Mapping[str, str],
    about: str,
    goals: Mapping[str, float],
) -> list[Row]:
    """Rows of cost and of ratios, medians of the rounds."""
    note = f"median of {len(rounds)}" if len(rounds) > 1 else "one run"

    def over(of: Callable[[Seconds], float]) -> float:
        return median(map(of, rounds))

    rows = [
        row(figure, WHOLE, "CPU once per base", over(lambda spent: spent[BASE]), "s", note=f"{note}; {about}"),
        row(figure, WHOLE, "CPU per checkpoint, base apart", over(lambda spent: _ours(spent, snapshots)[0]), "s"),
        row(figure, WHOLE, "CPU per checkpoint, base included", over(lambda spent: _ours(spent, snapshots)[1]), "s"),
    ]
    for what in (what for what in rounds[0] if what not in (BASE, WHOLE)):
        rows += [
            row(figure, what, "CPU per snapshot", over(lambda spent, what=what: spent[what]), "s", note=note),
            row(
                figure,
                what,
                "over ours, base apart",
                over(lambda spent, what=what: spent[what] / _ours(spent, snapshots)[0]),
                "x",
            ),
            row(
                figure,
                what,
                "over ours, base included",
                over(lambda spent, what=what: spent[what] / _ours(spent, snapshots)[1]),
                "x",
                least=goals.get(what),
            ),
        ]
    return rows + [
        row(figure, what, "over ours, base included", None, "x", least=goals.get(what), note=reason)
        for what, reason in absent.items()
    ]


def _ours(spent: Seconds, snapshots: int) -> tuple[float, float]:
    """CPU seconds per checkpoint without and with base factors."""
    return (spent[WHOLE] - spent[BASE]) / snapshots, spent[WHOLE] / snapshots


def _apart(store: Store, paths: list[Path], say: Callable[[str], None]) -> Iterator[tuple[str, float]]:
    """CPU seconds of each table by itself, over all checkpoints; the store holds the base factors."""
    for table in measuring.DEFAULT.tables:
        say(f"{table} alone")
        yield table, measuring.measure(store, paths, table, (table,)).snapshots


def _tables(apart: Seconds, first: Seconds, snapshots: int) -> list[Row]:
    whole = _ours(first, snapshots)[0]
    rows = []
    for table, seconds in apart.items():
        each = seconds / snapshots
        note = f"{each / whole:.0%} of the default measurement, base apart; one run"
        rows.append(row(10, f"{table} alone", "CPU per checkpoint", each, "s", note=note))
    total = sum(apart.values()) / snapshots / whole
    note = "above 1: reading, W_t - W0 and spectra are shared between tables"
    return [*rows, row(10, "all tables alone", "their sum over the default measurement", total, "x", note=note)]


def _in_one_call(folder: Path, sizes: Sizes) -> Row:
    paths = write_trajectory(folder / "whole", sizes.ten, "rl", sizes.snapshots)
    spent = measuring.measure(_store(folder, "whole"), paths, "whole")
    note = f"one run, {spent.base:.3g} s of all {spent.seconds:.4g} s once per base"
    case = f"{len(sizes.ten)} matrices in one call"
    return row(10, case, "CPU per checkpoint, base included", spent.seconds / sizes.snapshots, "s", note=note)


def _python(environment: Environment, sizes: Sizes, say: Callable[[str], None]) -> Path:
    return environment.install(say) if sizes.install else environment.interpreter()


def _store(folder: Path, name: str) -> Store:
    return Store(f"file://{folder}/store-{name}")
