"""Figure 1: rotation of one wide matrix, against float64 truth, one f32 SVD and one float64 Gram factorization.

Truth is the float64 Gram eigh of W0 and W_t with sine-based angles, good to about 1e-9 degrees here. An error is that
of the largest or of the mean of the k angles, relative to the true one. The rivals only factor W_t: what they would
need of W0 is not counted, as our base is not.
"""

from functools import partial

import torch

from opd_ops.geometry.suite import Matrix
from tests.bench import engine, synthetic
from tests.bench.catalog import say
from tests.bench.plain import Leading, gram
from tests.bench.row import Row, row
from tests.bench.seconds import cpu
from tests.bench.sizes import Sizes

ERROR = 1e-3  # relative, of the largest and of the mean angle
SVD, GRAM = 60.0, 20.0  # times cheaper than a full f32 SVD of W_t, and than its float64 Gram factorization
PARTS = ("rotation",)


def measure_accuracy(sizes: Sizes) -> list[Row]:
    (m, n), k = sizes.wide, sizes.k
    say(f"W0 {m} x {n}")
    w0 = synthetic.weight("heavy", m, n, 0)
    base = cpu(partial(engine.prepare, w0, k, PARTS))
    rows = [row(1, "base", "CPU once per base", base.seconds, "s", note=f"{engine.NAME}, k = {k}")]
    truth0 = gram(w0, k)
    w_t = synthetic.updated(w0, "rl", synthetic.UPDATES["rl"].rel, 1)
    svd = cpu(partial(torch.linalg.svd, w_t.float(), full_matrices=False)).seconds
    rows.append(row(1, "f32 SVD", "CPU", svd, "s", note="torch.linalg.svd of W_t, once, for both updates"))
    for kind in synthetic.UPDATES:
        say(kind)
        rows += _update(w0, truth0, base.result, kind, svd, sizes)
    return rows


def _update(w0: torch.Tensor, truth0: Leading, base: Matrix, kind: str, svd: float, sizes: Sizes) -> list[Row]:
    w_t = synthetic.updated(w0, kind, synthetic.UPDATES[kind].rel, 1)
    ours = cpu(lambda: engine.diagnose(base, w_t), sizes.repeats)
    rival = cpu(lambda: truth0.angles(gram(w_t, sizes.k)))
    values = engine.values(ours.result)
    rows = []
    for side, true in rival.result.items():
        for name, reference in (("max_deg", float(true[-1])), ("mean_deg", float(true.mean()))):
            error = abs(values[f"{side} {name}"] - reference) / reference
            note = f"true {reference:.3g} deg"
            rows.append(row(1, kind, f"{side} side, error of {name}", error, most=ERROR, note=note))
    rows += [
        row(1, kind, "CPU per snapshot", ours.seconds, "s", note=f"median of {ours.runs}"),
        row(1, kind, "f32 SVD over ours", svd / ours.seconds, "x", least=SVD),
        row(
            1,
            kind,
            "float64 Gram over ours",
            rival.seconds / ours.seconds,
            "x",
            least=GRAM,
            note=f"{rival.seconds:.3g} s",
        ),
    ]
    return rows
