"""Figure 2: CPU seconds of one snapshot of ten matrices, from files to rows, and what the same costs elsewhere.

Ours holds the base factors, which are reported apart, and reads W_t by byte range; the published recipe and the tools
read and factor both checkpoints, as they do. Tools are compared over what they measure too: support and the spectrum
of W_t - W0. Agreement is the largest relative difference over the ten matrices from the float64 reference.
"""

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from pipelines.store.tensors import TensorRef
from tests.bench import engine, peers, truth
from tests.bench.catalog import Tell
from tests.bench.checkpoints import refs, write_pair
from tests.bench.environment import Absent
from tests.bench.plain import Plain, plain
from tests.bench.row import Row, row
from tests.bench.seconds import cpu
from tests.bench.sizes import Sizes

GOALS = {"rotation": 40.0, "with dW spectra": 20.0, "with exact NSS": 12.0}  # times cheaper than the published recipe
PEERS = {"weightwatcher": 5.0, "modeldelta": 5.0}
SHARED = ("frobenius", "spectral_norm", "stable_rank", "effective_rank", "effective_rank_energy", "unchanged")

Refs = dict[str, TensorRef]
Values = dict[str, dict[str, float]]  # by matrix, by metric


def snapshot(sizes: Sizes, tell: Tell) -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        tell(0.0, "writing two checkpoints")
        folders = write_pair(Path(folder), sizes.ten, "rl")
        before, after = map(refs, folders)
        tell(0.05, "published recipe")
        recipe = cpu(lambda: {name: plain(ref.read(), after[name].read(), sizes.k) for name, ref in before.items()})
        rows = [row(2, "published recipe", "CPU per snapshot", recipe.seconds, "s", note="two f32 SVDs and svdvals")]
        found: Values = {}
        for place, (name, parts) in enumerate(engine.SETS.items()):
            tell(0.4 + 0.1 * place, name)
            mine, found, seconds = _ours(name, before, after, parts, sizes)
            rows += mine
            rows.append(row(2, name, "published recipe over ours", recipe.seconds / seconds, "x", least=GOALS[name]))
        rows += _recipe_agreement(recipe.result, found)  # of the last set, which holds the others
        tell(0.7, "what the tools measure too")
        mine, found, shared = _ours("shared with the tools", before, after, engine.SHARED, sizes)
        tell(0.75, "float64 reference")
        true = _truth(before, after)
        rows += mine + _agreement("shared with the tools", found, true)
        for place, peer in enumerate(peers.PINS):
            say = partial(tell, 0.8 + 0.1 * place)
            say(peer)
            rows += _peer(peer, folders, shared, true, sizes, say)
    return rows


def _ours(
    case: str, before: Refs, after: Refs, parts: tuple[str, ...], sizes: Sizes
) -> tuple[list[Row], Values, float]:
    """Rows of cost, what was measured, and CPU seconds per snapshot."""
    bases = cpu(lambda: {name: engine.prepare(ref.read(), sizes.k, parts) for name, ref in before.items()})
    done = cpu(
        lambda: {name: engine.diagnose(base, after[name].read()) for name, base in bases.result.items()}, sizes.repeats
    )
    rows = [
        row(2, case, "CPU once per base", bases.seconds, "s", note=engine.NAME),
        row(2, case, "CPU per snapshot", done.seconds, "s", note=f"median of {done.runs}"),
    ]
    return rows, {name: engine.values(tables) for name, tables in done.result.items()}, done.seconds


def _peer(
    peer: str, folders: tuple[Path, Path], ours: float, true: Values, sizes: Sizes, say: Callable[[str], None]
) -> list[Row]:
    case, least = f"{peer} {peers.PINS[peer]}", PEERS[peer]
    try:
        python = peers.TOOLS.install(say) if sizes.install else peers.TOOLS.interpreter()
        found = peers.measure(peer, python, *folders)
    except Absent as reason:
        return [row(2, case, f"{peer} over ours", None, "x", least=least, note=str(reason))]
    return [
        row(2, case, "CPU per snapshot", found.seconds, "s", note="its process, imports taken off"),
        row(2, case, f"{peer} over ours", found.seconds / ours, "x", least=least),
        *_agreement(case, found.values, true),
    ]


def _truth(before: Refs, after: Refs) -> Values:
    """The shared metrics in float64."""
    pairs = {name: (ref.read(), after[name].read()) for name, ref in before.items()}
    return {name: truth.update(*pair) | {"unchanged": truth.unchanged(*pair)} for name, pair in pairs.items()}


def _agreement(case: str, found: Values, true: Values) -> list[Row]:
    rows = []
    for metric in SHARED:
        pairs = [(values[metric], true[name][metric]) for name, values in found.items() if metric in values]
        if pairs:
            worst = max(abs(value - exact) / abs(exact) for value, exact in pairs)
            rows.append(
                row(2, case, f"{metric}, largest difference from float64", worst, note=f"{len(pairs)} matrices")
            )
    return rows


def _recipe_agreement(recipe: dict[str, Plain], found: Values) -> list[Row]:
    """How far the published recipe is from what ours found."""
    worst: dict[str, float] = {}
    for name, theirs in recipe.items():
        values = {
            "nss": theirs.nss,
            "output max_deg": float(theirs.output_deg[-1]),
            "input max_deg": float(theirs.input_deg[-1]),
        }
        for metric, value in values.items():
            mine = found[name][metric]
            worst[metric] = max(worst.get(metric, 0.0), abs(value - mine) / mine)
    return [row(2, "published recipe", f"{metric}, largest difference from ours", it) for metric, it in worst.items()]
