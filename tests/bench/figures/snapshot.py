"""Figure 2: CPU seconds of one snapshot of ten matrices, from files to rows, and what the same costs elsewhere.

Ours holds the base factors, which are reported apart, and reads W_t by byte range; the published recipe and the tools
read and factor both checkpoints, as they do. Tools are compared over what they measure too: support and the spectrum
of W_t - W0. The recipe's error is the largest relative difference from ours, which is exact, over the ten matrices.
"""

import tempfile
from pathlib import Path

from pipelines.store.tensors import TensorRef
from tests.bench import engine, peers
from tests.bench.catalog import say
from tests.bench.checkpoints import refs, write_trajectory
from tests.bench.environment import Absent
from tests.bench.plain import Plain, plain
from tests.bench.row import Row, row
from tests.bench.seconds import cpu
from tests.bench.sizes import Sizes

GOALS = {"rotation": 40.0, "with dW spectra": 20.0, "with exact NSS": 12.0}  # times cheaper than the published recipe
PEER_GOAL = 5.0

Refs = dict[str, TensorRef]
Values = dict[str, dict[str, float]]  # by matrix, by metric


def measure_snapshot(sizes: Sizes) -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        base, step = write_trajectory(Path(folder), sizes.ten, "rl", 1)
        before, after = refs(base), refs(step)
        say("published recipe")
        recipe = cpu(lambda: {name: plain(ref.read(), after[name].read(), sizes.k) for name, ref in before.items()})
        rows = [row(2, "published recipe", "CPU per snapshot", recipe.seconds, "s", note="two f32 SVDs and svdvals")]
        values: Values = {}
        for name, tables in engine.SETS.items():
            say(name)
            mine, values, seconds = _measure_ours(name, before, after, tables, sizes)
            rows += mine
            rows.append(row(2, name, "published recipe over ours", recipe.seconds / seconds, "x", least=GOALS[name]))
        rows += _compare_recipe(recipe.result, values)  # with the last set, which holds the others
        say("what the tools measure too")
        mine, _, seconds = _measure_ours("shared with the tools", before, after, engine.SHARED, sizes)
        rows += mine
        for peer in peers.PINS:
            say(peer)
            rows += _measure_peer(peer, base, step, seconds, sizes)
    return rows


def _measure_ours(
    case: str, before: Refs, after: Refs, tables: tuple[str, ...], sizes: Sizes
) -> tuple[list[Row], Values, float]:
    """Rows of cost, what was measured, and CPU seconds per snapshot."""
    bases = cpu(lambda: {name: engine.prepare(ref.read(), sizes.k, tables) for name, ref in before.items()})
    done = cpu(
        lambda: {name: engine.diagnose(base, after[name].read()) for name, base in bases.result.items()}, sizes.repeats
    )
    rows = [
        row(2, case, "CPU once per base", bases.seconds, "s", note=engine.NAME),
        row(2, case, "CPU per snapshot", done.seconds, "s", note=f"median of {done.runs}"),
    ]
    return rows, {name: engine.values(found) for name, found in done.result.items()}, done.seconds


def _measure_peer(peer: str, base: Path, step: Path, ours: float, sizes: Sizes) -> list[Row]:
    case = f"{peer} {peers.PINS[peer]}"
    try:
        seconds = peers.measure(peer, peers.TOOLS.python(sizes.install), base, step)
    except Absent as reason:
        return [row(2, case, f"{peer} over ours", None, "x", least=PEER_GOAL, note=str(reason))]
    return [
        row(2, case, "CPU per snapshot", seconds, "s", note="its process, imports taken off"),
        row(2, case, f"{peer} over ours", seconds / ours, "x", least=PEER_GOAL),
    ]


def _compare_recipe(recipe: dict[str, Plain], values: Values) -> list[Row]:
    """How far the published recipe is from ours."""
    worst: dict[str, float] = {}
    for name, theirs in recipe.items():
        angles = {"output max_deg": float(theirs.output_deg[-1]), "input max_deg": float(theirs.input_deg[-1])}
        for metric, value in (angles | {"nss": theirs.nss}).items():
            ours = values[name][metric]
            worst[metric] = max(worst.get(metric, 0.0), abs(value - ours) / ours)
    return [row(2, "published recipe", f"{metric}, largest difference from ours", it) for metric, it in worst.items()]
