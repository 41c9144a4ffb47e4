"""The door of this room: `measure` turns one matrix's trajectory W0, W_1, ... into the rows of all tables.

Matrix-major: W0 is factored once (once per view where the views differ), snapshots are read one at a time, and the
cost of a (snapshot, view) is two factorizations: W_t, shared by rotation and drift, and W_t - W0, shared by spectrum,
Hill and locking. Nothing is averaged over matrices here. Not measured: fused weights as such (split q, k, v before;
the subspaces of a stack are not those of its parts) and steps the trajectory does not hold.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from opd_ops.geometry import VERSION, drift, localization, locking, rotation, spectrum, support
from opd_ops.geometry.exact import Factors, factor
from opd_ops.geometry.views import as_view, dtype_name, nonfinite, views

TABLES = ("update_support", "rotation", "spectral_drift", "localization", "update_spectrum", "hill", "locking")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What to measure. Cuts past min(m, n) give null rows with a reason, so one setting serves all shapes."""

    k: tuple[int, ...] = (16,)  # cuts of rotation (D2)
    alpha: tuple[float, ...] = (0.3, 0.5)  # mask weights of localization (D4), fractions of the matrix
    hill_k: tuple[int, ...] = (16, 32, 64)  # cuts of Hill (D7); 10 % of min(m, n) is always added
    locking_k: tuple[int, ...] = (16,)  # cuts of locking (D8)

    def __post_init__(self) -> None:
        for name, least in (("k", 1), ("hill_k", 2), ("locking_k", 1)):
            cuts = getattr(self, name)
            if len(set(cuts)) < len(cuts) or any(cut < least for cut in cuts):
                raise ValueError(f"{name}={cuts}: cuts are distinct integers from {least} up")
        if len(set(self.alpha)) < len(self.alpha) or not all(0.0 < alpha < 1.0 for alpha in self.alpha):
            raise ValueError(f"alpha={self.alpha}: mask weights are distinct and lie between 0 and 1")


@dataclass(frozen=True)
class Measurement:
    """rows: for each of TABLES a list of dicts of Python scalars, lists and None. problems: what could not be read."""

    rows: dict[str, list[dict]]
    problems: list[str]


@dataclass(frozen=True)
class Start:
    """W0 [m, n] in one view, float64, with what every snapshot needs of it, computed at first use."""

    weight: Tensor
    settings: Settings

    @cached_property
    def factors(self) -> Factors:
        return factor(self.weight, max((localization.mask_rank(*self.weight.shape), *self.settings.k)))

    @cached_property
    def masks(self) -> tuple[localization.Mask, ...]:
        return localization.masks(self.weight, self.factors, self.settings.alpha)


def measure(
    base: Tensor, snapshots: Iterable[tuple[int, Tensor]], *, settings: Settings, projection: bool
) -> Measurement:
    """Rows of all diagnostics for one weight.

    base: W0; snapshots: (optimizer step, W_t) in ascending order, read lazily; any float dtype, all of base's shape.
    projection: True for a 2-D decoder projection [out, in]; False (embedding, head, norm, bias; any shape) gives
    update_support alone. Views follow the dtype of each snapshot. Step 0 gives no rows. A row holds step, the table's
    own columns, dtype and method; whose matrix it is, is for the caller to add.

    A snapshot with NaN or Inf gives update_support and a problem; a base with them gives a problem and no rows.
    ValueError: shapes differ, steps do not ascend, an empty weight, a projection that is no matrix. RuntimeError: a
    row came out non-finite (weights whose squares leave float64).
    """
    if base.numel() == 0 or (projection and base.ndim != 2):
        raise ValueError(f"W0 has shape {tuple(base.shape)}; a projection is a matrix and no weight is empty")
    rows: dict[str, list[dict]] = {table: [] for table in TABLES}
    if broken := nonfinite(base):
        return Measurement(rows, [f"base: {broken} non-finite weights"])
    problems: list[str] = []
    starts: dict[str, Start] = {}
    updates: dict[str, list[tuple[int, Factors]]] = {"bf16": [], "master": []}
    stored: dict[int, str] = {}
    last = -1
    for step, snapshot in snapshots:
        if snapshot.shape != base.shape:
            raise ValueError(f"step {step} has shape {tuple(snapshot.shape)}, W0 has {tuple(base.shape)}")
        if step <= last:
            raise ValueError(f"step {step} came after step {last}; snapshots come in ascending order from 0")
        last = step
        if step == 0:
            continue
        stored[step] = dtype_name(snapshot.dtype)
        broken = nonfinite(snapshot)
        if broken:
            problems.append(f"step {step}: {broken} non-finite weights")
        for view in views(snapshot.dtype):
            scope = "projection" if projection else "other"
            found = {"update_support": (support.METHOD, support.rows(base, snapshot, view, scope))}
            if projection and not broken:
                start = _start(starts, base, view, settings)
                grid = torch.bfloat16 if view == "bf16" else snapshot.dtype
                tables, update = _projection(start, as_view(snapshot, view), grid, view)
                found |= tables
                updates[view].append((step, update))
            for table, (method, new) in found.items():
                rows[table] += [_row(step, row, stored[step], method) for row in new]
    for view, trajectory in updates.items():
        for row in locking.rows(trajectory, settings.locking_k, view):
            rows["locking"].append(_row(row["step"], row, stored[row["step"]], trajectory[0][1].method))
    _require_finite(rows)
    return Measurement(rows, problems)


def _start(starts: dict[str, Start], base: Tensor, view: str, settings: Settings) -> Start:
    """W0 of the view; the same object for both views where W0 is representable in bf16, so it is factored once."""
    if view not in starts:
        weight = as_view(base, view)
        twins = [start for start in starts.values() if torch.equal(start.weight, weight)]
        starts[view] = twins[0] if twins else Start(weight, settings)
    return starts[view]


def _projection(start: Start, weight: Tensor, grid: torch.dtype, view: str) -> tuple[dict, Factors]:
    """All tables but support and locking for W_t of one view, as table: (method, rows), and the update's factors."""
    settings, base = start.settings, start.factors
    delta = weight - start.weight
    changed = delta != 0.0
    # An unmoved matrix keeps W0's own factors, so angles and drift are 0 by construction.
    tuned = factor(weight, max((*settings.k, 0))) if bool(changed.any()) else base
    update = factor(delta, max((*settings.locking_k, 0)))
    noise = spectrum.rounding_norm(weight, grid)
    base_norm = float(torch.linalg.vector_norm(start.weight))
    tables = {
        "rotation": rotation.rows(base, tuned, settings.k, view),
        "spectral_drift": drift.rows(base, tuned, delta, view),
        "localization": localization.rows(start.masks, changed, view),
        "update_spectrum": spectrum.rows(delta, update, base_norm, noise, view),
        "hill": spectrum.hill_rows(update, settings.hill_k, view),
    }
    return {table: (base.method, found) for table, found in tables.items()}, update


def _row(step: int, columns: dict, stored: str, method: str) -> dict:
    return {"step": step, **columns, "dtype": stored, "method": f"{method}/{VERSION}"}


def _require_finite(rows: dict[str, list[dict]]) -> None:
    for table, found in rows.items():
        for row in found:
            for column, value in row.items():
                values = value if isinstance(value, list) else [value]
                if any(isinstance(number, float) and not math.isfinite(number) for number in values):
                    raise RuntimeError(f"{table}.{column} is not finite at step {row['step']}: {value}")
