"""The door of the bench to the engine: base factors of W0 once, then the rows of one snapshot.

What is measured is named by tables, and the sets of tables are what the figures ask for. Views are bf16, cuts one k.
"""

from torch import Tensor

from opd_ops.geometry import VERSION, gemm
from opd_ops.geometry.suite import Matrix, Settings

NAME = f"engine {VERSION}"

ROTATION = ("update_support", "rotation", "update_norm")  # support, angles of both sides, stable rank of W_t - W0
SPECTRA = (*ROTATION, "update_spectrum")  # and all ranks of W_t - W0
DRIFT = (*SPECTRA, "spectral_drift")  # and the exact nss
SHARED = ("update_support", "update_norm", "update_spectrum")  # what WeightWatcher and modeldelta measure too
SETS = {"rotation": ROTATION, "with dW spectra": SPECTRA, "with exact NSS": DRIFT}

Rows = dict[str, list[dict]]  # by table


def prepare(weight: Tensor, k: int, parts: tuple[str, ...]) -> Matrix:
    """What all snapshots of one matrix share, as far as the tables `parts` need it."""
    device = weight.device.type
    settings = Settings(k=(k,), tables=tuple(parts))
    matrix = Matrix(weight, settings=settings, projection=True, device=device, gemm_path=gemm.choose_path(device).path)
    matrix.prepare()
    return matrix


def diagnose(base: Matrix, w_t: Tensor) -> Rows:
    """Rows of one snapshot."""
    return base.snapshot(1, w_t).rows


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
