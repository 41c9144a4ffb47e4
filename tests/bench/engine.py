"""The door of the bench to the engine: base factors of W0 once, then the rows of one snapshot.

What is measured is named by tables, and the sets of tables are what the figures ask for. Views are bf16, cuts one k.
"""

import math
from dataclasses import dataclass, replace

from torch import Tensor

from opd_ops.geometry import VERSION, gemm, support
from opd_ops.geometry.suite import Matrix, Settings
from pipelines.store.tensors import TensorRef

NAME = f"engine {VERSION}"

ROTATION = ("update_support", "rotation", "update_norm")  # support, angles of both sides, stable rank of W_t - W0
SPECTRA = (*ROTATION, "update_spectrum")  # and all ranks of W_t - W0
DRIFT = (*SPECTRA, "spectral_drift")  # and the exact nss
SHARED = ("update_support", "update_norm", "update_spectrum")  # what WeightWatcher and modeldelta measure too
SETS = {"rotation": ROTATION, "with dW spectra": SPECTRA, "with exact NSS": DRIFT}
BLOCK = 1 << 23  # weights of an embedding compared at once

Rows = dict[str, list[dict]]  # by table


@dataclass(frozen=True)
class Base:
    """W0, with what its snapshots need."""

    matrix: Matrix


def prepare(weight: Tensor, k: int, parts: tuple[str, ...]) -> Base:
    """What all snapshots of one matrix share, as far as the tables `parts` need it."""
    device = weight.device.type
    settings = Settings(k=(k,), tables=tuple(parts))
    matrix = Matrix(weight, settings=settings, projection=True, device=device, gemm_path=gemm.choose(device).path)
    matrix.prepare()
    return Base(matrix)


def diagnose(base: Base, w_t: Tensor) -> Rows:
    """Rows of one snapshot."""
    return base.matrix.snapshot(1, w_t).rows


def unchanged(base: TensorRef, snapshot: TensorRef) -> Rows:
    """The rows of a weight that is no projection, such as an embedding, read and compared in blocks."""
    numel = math.prod(base.shape)
    pairs = ((_block(base, begin), _block(snapshot, begin)) for begin in range(0, numel, BLOCK))
    changed = sum(support.changes(before.read(), after.read(), "bf16").count for before, after in pairs)
    return {"update_support": [{"unchanged": 1.0 - changed / numel}]}


def values(rows: Rows) -> dict[str, float]:
    """The scalars of one snapshot by column name; those of rotation as `<side> max_deg` and `<side> mean_deg`."""
    found: dict[str, float] = {}
    for table, mine in rows.items():
        for row in mine:
            if table == "rotation":
                found |= {f"{row['side']} {name}": row[name] for name in ("max_deg", "mean_deg", "error_deg")}
            else:
                found |= {name: value for name, value in row.items() if isinstance(value, float)}
    return found


def _block(ref: TensorRef, begin: int) -> TensorRef:
    """BLOCK weights from an offset, as a vector."""
    numel = math.prod(ref.shape)
    count, size = min(BLOCK, numel - begin), (ref.end - ref.begin) // numel
    return replace(ref, shape=(count,), begin=ref.begin + begin * size, end=ref.begin + (begin + count) * size)
