"""The entry point of the package: `Matrix` turns one weight's snapshots W_1, W_2, ... into the rows of all tables.

Factors of W0 are computed once and cached under W0's digest. A snapshot computes only
what its requested tables need. Up to min(m, n) = 512 everything is dense float64. Above, rotation comes from
`certified`, spectra of W_t from float64 and spectra of W_t - W0 from f32 Gram matrices (`update`). If an f32 route
fails, float64 is used; if that fails, rows are null with the reason (`attempts`). Nothing is averaged over matrices.
Not measured: fused weights (split q, k, v first: the subspaces of a stack are not those of its parts), and steps
without a snapshot.

The file is longer than 350 lines because every route of a snapshot goes through `Matrix`.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property, partial

import torch
from torch import Tensor

from opd_ops.geometry import (
    TABLES,
    drift,
    gemm,
    localization,
    null_rows,
    nulls,
    rotation,
    scale,
    spectrum,
    subspace_rows,
    support,
)
from opd_ops.geometry.attempts import try_routes
from opd_ops.geometry.base import BaseFactors, Cache, digest, factor_width, factorise_base, is_certifiable
from opd_ops.geometry.certified import Tuned
from opd_ops.geometry.exact import Factors, factorise
from opd_ops.geometry.settings import Settings
from opd_ops.geometry.snapshot import Snapshot, Tables, complete_row, locking_rows, require_finite, tag_method
from opd_ops.geometry.update import Subspaces, Update, no_subspaces
from opd_ops.geometry.views import as_view, count_nonfinite, dtype_name, views_of_dtype

FACTORED = tuple(table for table in TABLES if table not in ("update_support", "nulls"))  # need W_t - W0 of this step


@dataclass(frozen=True)
class NullRows:
    """Rows of `nulls` of one step. subspaces: of the shuffled null, by view. problem: why rows are null, or None."""

    rows: list[dict]
    subspaces: dict[str, Subspaces]
    problem: str | None


@dataclass(frozen=True)
class Measurement:
    """rows: for each of TABLES, a list of dicts of Python scalars, lists and None. problems: reasons for null rows."""

    rows: dict[str, list[dict]]
    problems: list[str]


class Start:
    """W0 of one view in the narrowest exact dtype, with its factors and masks, computed at first use."""

    def __init__(self, weight: Tensor, settings: Settings, cache: Cache | None, device: str) -> None:
        self.weight, self.settings, self.cache, self.device = weight, settings, cache, device
        self.dense = settings.dense or weight.dtype == torch.float64 or not is_certifiable(weight.shape, settings.k)

    @cached_property
    def key(self) -> str:
        return digest(self.weight)

    @cached_property
    def norm(self) -> float:
        """||W0||_F."""
        return scale.frobenius(self.weight)

    @cached_property
    def factors(self) -> Factors:
        """Dense float64 factors; only for dense starts."""
        return factorise(self.weight.double(), max((localization.mask_rank(*self.weight.shape), *self.settings.k)))

    @cached_property
    def base(self) -> BaseFactors:
        """Cached base factors; only for starts that are not dense."""
        q = factor_width(self.settings.k)
        name = f"factors-{q}"
        tensors = self.cache.load(self.key, name) if self.cache is not None else None
        if tensors is None:
            factors = factorise_base(self.weight.to(self.device), q)
            if self.cache is not None:
                self.cache.save(self.key, name, factors.tensors())
        else:
            factors = BaseFactors.from_tensors(tensors)
        return factors.to(self.device)

    @cached_property
    def masks(self) -> tuple[localization.Mask, ...]:
        name = "masks-" + "-".join(f"{alpha:g}" for alpha in self.settings.alpha)
        tensors = self.cache.load(self.key, name) if self.cache is not None and not self.dense else None
        if tensors is not None:
            return localization.Mask.several_from(tensors)
        if self.dense:
            u, s, v = self.factors.u, self.factors.s, self.factors.v
        else:
            base = self.base.to("cpu")
            u, s, v = (base.v, base.s, base.u) if base.turned else (base.u, base.s, base.v)
        masks = localization.masks(self.weight, u, s, v, self.settings.alpha)
        if self.cache is not None and not self.dense:
            self.cache.save(self.key, name, localization.Mask.several_to(masks))
        return masks


class Matrix:
    """One weight of a trajectory: W0, and the rows of any snapshot of it.

    weight: W0, any float dtype. projection: True for a 2-D decoder projection [out, in]; False (embedding, head, norm,
    bias; any shape) gives only update_support. cache: for base factors. device: of matrix products. gemm_path: the f32
    product to use, as returned by `gemm.choose_path`.
    Errors: ValueError for an empty weight, or a projection that is no matrix.
    """

    def __init__(
        self,
        weight: Tensor,
        *,
        settings: Settings,
        projection: bool,
        cache: Cache | None = None,
        device: str = "cpu",
        gemm_path: str = "highest",
    ) -> None:
        if weight.numel() == 0 or (projection and weight.ndim != 2):
            raise ValueError(f"W0 has shape {tuple(weight.shape)}; a projection is a matrix and no weight is empty")
        self.weight, self.settings, self.projection = weight, settings, projection
        self.cache, self.device, self.gemm_path = cache, device, gemm_path
        self.broken = count_nonfinite(weight)
        self.starts: dict[str, Start] = {}
        self.directions: dict[bool, tuple[Tensor, null_rows.Direction]] = {}
        self.buffers: dict[str, Tensor] = {}

    @property
    def problem(self) -> str | None:
        return f"base: {_describe_broken(self.weight, self.broken)}" if self.broken else None

    def prepare(self) -> None:
        """Compute or load W0's factors and masks, for snapshots with the dtype of W0."""
        if not self.projection or self.broken:
            return
        for view in views_of_dtype(self.weight.dtype):
            start = self._start(view)
            if self.settings.wants("rotation", "singular_shift", "spectral_drift"):
                _ = start.factors if start.dense else start.base
            if self.settings.wants("localization"):
                _ = start.masks

    def snapshot(self, step: int, weight: Tensor) -> Snapshot:
        """Rows of one step for all requested tables except `locking` and `nulls` (`shuffled`, `fixed_direction`).

        NaN and Inf weights give null rows with the reason, and a problem. So do errors during the computation, except
        errors of the machine (`attempts`). Errors: ValueError if shapes differ.
        """
        if weight.shape != self.weight.shape:
            raise ValueError(f"step {step} has shape {tuple(weight.shape)}, W0 has {tuple(self.weight.shape)}")
        stored, broken = dtype_name(weight.dtype), count_nonfinite(weight)
        rows: dict[str, list[dict]] = {table: [] for table in TABLES}
        subspaces: dict[str, Subspaces] = {}
        problems = {f"step {step}: {_describe_broken(weight, broken)}": None} if broken else {}
        for view in views_of_dtype(weight.dtype):
            reason = self._unmeasurable(view, weight, broken)
            changes = support.compare_weights(self.weight, weight, view)
            tables = self._support(view, changes)
            if self.projection and self.settings.wants(*FACTORED):
                factored, why = (None, reason) if reason else self._factored_rows(view, weight, changes, subspaces)
                if why is not None and reason is None:
                    problems[f"step {step}: {why}"] = None
                tables |= self._missing(view, str(why), subspaces) if factored is None else factored
            for table, columns in tables.items():
                rows[table] += [complete_row(step, row, stored, method) for method, row in columns]
        return Snapshot(step, stored, rows, subspaces, "; ".join(problems) or None)

    def shuffled_null(self, step: int, weight: Tensor) -> NullRows:
        """The shuffled null of one step. `compare_nulls` adds the similarities to the final step."""
        rows: list[dict] = []
        subspaces: dict[str, Subspaces] = {}
        stored, broken, problem = dtype_name(weight.dtype), count_nonfinite(weight), None
        for view in views_of_dtype(weight.dtype):
            reason = self._unmeasurable(view, weight, broken)
            route = partial(self._shuffled_null, view, weight)
            null, why = (None, reason) if reason else _nulls(route, _wide(view, weight))
            if why is not None and reason is None:
                problem = f"step {step}: nulls: {why}"
            if null is None:
                null = null_rows.Null(support.METHOD, null_rows.missing(null_rows.SHUFFLED, None, view, str(why)))
            rows.append(complete_row(step, null.row, stored, null.method))
            if null.subspaces is not None:
                subspaces[view] = null.subspaces
        return NullRows(rows, subspaces, problem)

    def fixed_direction(self, step: int, weight: Tensor, final_step: int, final: Tensor) -> NullRows:
        """The fixed-direction null of one step. final: the trajectory's final weight, the same object for all steps."""
        view, stored, problem = "bf16", dtype_name(weight.dtype), None
        broken, broken_last = count_nonfinite(weight), count_nonfinite(final)
        reason = self._unmeasurable(view, weight, broken)
        if reason is None and broken_last:
            reason = f"W_{final_step} has {_describe_broken(final, broken_last)}"
        route = partial(self._fixed_direction, weight, final_step, final)
        null, why = (None, reason) if reason else _nulls(route, False)
        if why is not None and reason is None:
            problem = f"step {step}: nulls: {why}"
        if null is None:
            null = null_rows.Null(support.METHOD, null_rows.missing(null_rows.FIXED, final_step, view, str(why)))
        return NullRows([complete_row(step, null.row, stored, null.method)], {}, problem)

    def _shuffled_null(self, view: str, weight: Tensor, dense: bool) -> null_rows.Null:
        e = self._delta(view, weight, dense)[1]
        return null_rows.shuffled_null(e, view, self.settings, self._start(view, dense).dense)

    def _fixed_direction(self, weight: Tensor, final_step: int, final: Tensor, dense: bool) -> null_rows.Null:
        direction = self._direction(final_step, final, dense or _wide("master", final))
        return direction.null(scale.frobenius(self._delta("bf16", weight, dense)[1]))

    def _support(self, view: str, changes: support.Changes) -> Tables:
        if not self.settings.wants("update_support"):
            return {}
        scope = "projection" if self.projection else "other"
        return {"update_support": tag_method(support.METHOD, support.rows(changes, view, scope))}

    def _factored_rows(
        self, view: str, weight: Tensor, changes: support.Changes, subspaces: dict[str, Subspaces]
    ) -> tuple[Tables | None, str | None]:
        """The rows of the FACTORED tables of one view, with float64 as the fallback; or None and the reason."""
        route = partial(self._rows, view, weight, changes, subspaces)
        rows, why = try_routes(partial(route, dense=_wide(view, weight)))
        if rows is not None or self._start(view).dense:
            return rows, why
        rows, last = try_routes(partial(route, dense=True))
        for _, row in (rows or {}).get("rotation", ()):
            row["fallback"] = f"{why}: dense float64 factors" if row["reason"] is None else None
        return rows, last

    def _rows(
        self,
        view: str,
        weight: Tensor,
        changes: support.Changes,
        subspaces: dict[str, Subspaces],
        dense: bool = False,
    ) -> Tables:
        """The rows of the FACTORED tables of one view with their methods. Stores the view's subspaces for locking."""
        settings, tables = self.settings, Tables()
        start = self._start(view, dense)
        after, e = self._delta(view, weight, dense)
        update = Update(e, start.dense, max(settings.locking_k, default=0))
        # Spectra first: a known spectrum makes norms and certificates cheaper.
        if settings.wants("update_spectrum"):
            tables["update_spectrum"] = tag_method(update.spectrum.method, spectrum.rank_rows(update, view))
        if settings.wants("hill"):
            rows = spectrum.hill_rows(update.spectrum, settings.hill_k, view)
            tables["hill"] = tag_method(update.spectrum.method, rows)
        if settings.wants("locking"):
            subspaces[view] = update.subspaces(settings.locking_k)
        if settings.wants("update_norm"):
            rounding = nulls.rounding_norm(after, torch.bfloat16 if view == "bf16" else weight.dtype)
            rows = spectrum.norm_rows(update, start.norm, rounding, view)
            tables["update_norm"] = tag_method(update.spectrum.method, rows)
        if settings.wants("localization"):
            method = start.factors.method if start.dense else "factors-f64"
            tables["localization"] = tag_method(method, localization.rows(start.masks, changes, view))
        tables |= self._leading(start, after, update, view)
        require_finite(tables)
        return tables

    def _leading(self, start: Start, after: Tensor, update: Update, view: str) -> Tables:
        """The requested tables of rotation, singular shifts and drift."""
        settings = self.settings
        if not settings.wants("rotation", "singular_shift", "spectral_drift"):
            return {}
        if not start.dense:
            tuned = Tuned(after, start.base, update, gemm.check_path(self.gemm_path, self.device))
            with gemm.use_path(self.gemm_path):
                return subspace_rows.rows_from_bases(start.base, tuned, update, settings, view)
        # An unchanged matrix reuses W0's factors, so angles, shifts and drift are exactly 0.
        tuned = start.factors if update.zero else factorise(after, max((*settings.k, 0)))
        return subspace_rows.rows_from_factors(start.factors, tuned, update, settings, view)

    def _missing(self, view: str, reason: str, subspaces: dict[str, Subspaces]) -> Tables:
        """Null rows of every requested table, and empty subspaces."""
        settings, shape = self.settings, self.weight.shape
        if settings.wants("locking"):
            subspaces[view] = no_subspaces(shape, settings.locking_k, reason)
        rows = {
            "rotation": [row for k in settings.k for row in rotation.missing(k, view, reason)],
            "singular_shift": [row for k in settings.k for row in drift.missing_shift(k, view, reason)],
            "spectral_drift": drift.missing(view, reason),
            "localization": localization.missing(shape, settings.alpha, view, reason),
            "update_norm": spectrum.missing_norms(view, reason),
            "update_spectrum": spectrum.missing_ranks(view, reason),
            "hill": spectrum.missing_hill(settings.hill_k, min(shape), view, reason),
        }
        return settings.requested_tables(
            **{table: tag_method(support.METHOD, table_rows) for table, table_rows in rows.items()}
        )

    def _direction(self, final_step: int, final: Tensor, dense: bool) -> null_rows.Direction:
        """The fixed direction of the final step, cached while `final` is the same object."""
        if dense not in self.directions or self.directions[dense][0] is not final:
            start = self._start("bf16", dense)
            widest = "bf16" if dtype_name(final.dtype) == "bf16" else "master"
            norm = scale.frobenius(self._delta("bf16", final, dense)[1])
            self.directions[dense] = (
                final,
                null_rows.Direction(
                    step=final_step,
                    start=start.weight.to(self.device, torch.float32),
                    direction=self._delta(widest, final, dense)[1].clone(),
                    norm=norm,
                    cuts=self.settings,
                    dense=start.dense,
                ),
            )
        return self.directions[dense][1]

    def _unmeasurable(self, view: str, weight: Tensor, broken: int) -> str | None:
        """Why a view cannot be measured: it has non-finite weights. broken: their number in `weight`, in bf16."""
        for name, w, count in (("W0", self.weight, self.broken), ("W_t", weight, broken)):
            if count and (view == "bf16" or count_nonfinite(w, view)):
                return f"{name} has {_describe_broken(w, count)}"
        return None

    def _start(self, view: str, dense: bool = False) -> Start:
        """W0 of the view; one object for both views if W0 is exact in bf16. dense: with float64 factors."""
        if dense and not self._start(view).dense:
            key = f"{view} dense"
            if key not in self.starts:
                settings = replace(self.settings, dense=True)
                self.starts[key] = Start(self._start(view).weight, settings, self.cache, self.device)
            return self.starts[key]
        if view not in self.starts:
            narrow = self.weight.to(torch.bfloat16)
            if view == "bf16" or self.weight.dtype == torch.bfloat16 or _equal(narrow, self.weight):
                key, weight = "bf16", narrow
            else:
                key, weight = "master", self.weight
            if key not in self.starts:
                self.starts[key] = Start(weight, self.settings, self.cache, self.device)
            self.starts[view] = self.starts[key]
        return self.starts[view]

    def _delta(self, view: str, weight: Tensor, dense: bool = False) -> tuple[Tensor, Tensor]:
        """W_t of the view and E = W_t - W0: float64 if dense, else f32 (exact for nearby weights) on the device."""
        start = self._start(view, dense)
        if start.dense:
            after = as_view(weight, view)
            return after, after - start.weight
        # Both reuse the previous snapshot's buffers: allocating new pages would cost as much as the arithmetic.
        after, e = (self._buffer(name) for name in ("after", "e"))
        blocks = (part.split(256) for part in (weight, start.weight, after, e))
        for now, before, after_rows, e_rows in zip(*blocks, strict=True):
            after_rows.copy_(now.to(torch.bfloat16) if view == "bf16" else now)
            torch.sub(after_rows, before.to(self.device, torch.float32), out=e_rows)
        return after, e

    def _buffer(self, name: str) -> Tensor:
        if name not in self.buffers:
            self.buffers[name] = torch.empty(self.weight.shape, dtype=torch.float32, device=self.device)
        return self.buffers[name]


def measure_matrix(
    base: Tensor,
    snapshots: Iterable[tuple[int, Tensor]],
    *,
    settings: Settings,
    projection: bool,
    cache: Cache | None = None,
    device: str = "cpu",
    gemm_path: str = "highest",
) -> Measurement:
    """Rows of all diagnostics for one weight, in one call; see `Matrix` for the arguments.

    snapshots: (optimizer step, W_t) in ascending order; any float dtype, all of base's shape. They are iterated one at
    a time, and a second time if `nulls` is requested, so pass a list. The views depend on the dtype of each snapshot.
    Step 0 gives no rows. A row holds step, the table's own columns, dtype and method; the caller adds the matrix' name.
    Errors: ValueError, also if steps do not ascend.
    """
    matrix = Matrix(base, settings=settings, projection=projection, cache=cache, device=device, gemm_path=gemm_path)
    rows: dict[str, list[dict]] = {table: [] for table in TABLES}
    problems = [matrix.problem] if matrix.problem else []
    taken: list[Snapshot] = []
    shuffled: list[NullRows] = []
    last, final = -1, None
    for step, weight in snapshots:
        if step <= last:
            raise ValueError(f"step {step} came after step {last}; snapshots come in ascending order from 0")
        last = step
        if step == 0:
            continue
        final = weight
        taken.append(matrix.snapshot(step, weight))
    for snapshot in taken:
        problems += [snapshot.problem] if snapshot.problem else []
        for table, table_rows in snapshot.rows.items():
            rows[table] += table_rows
    rows["locking"] = locking_rows(taken)
    if final is not None and projection and settings.wants("nulls"):
        for step, weight in snapshots:
            if step:
                both = matrix.shuffled_null(step, weight), matrix.fixed_direction(step, weight, last, final)
                shuffled.append(both[0])
                rows["nulls"] += both[1].rows
                problems += list(dict.fromkeys(null.problem for null in both if null.problem))
        rows["nulls"] += compare_nulls(shuffled, last)
    return Measurement(rows, problems)


def compare_nulls(shuffled: list[NullRows], final_step: int) -> list[dict]:
    """Rows of the shuffled null of several steps, with their similarities to the last one, the final step."""
    return [
        null_rows.add_similarities(
            row, null.subspaces.get(row["view"]), shuffled[-1].subspaces.get(row["view"]), final_step
        )
        for null in shuffled
        for row in null.rows
    ]


def _nulls(route: Callable[..., null_rows.Null], wide: bool) -> tuple[null_rows.Null | None, str | None]:
    """A finite null, with float64 as the fallback; or None and the reason."""

    def checked(dense: bool) -> null_rows.Null:
        null = route(dense=dense)
        require_finite({"nulls": [(null.method, null.row)]})
        return null

    return try_routes(partial(checked, wide), partial(checked, True))


def _equal(narrow: Tensor, wide: Tensor) -> bool:
    return all(torch.equal(a.to(b.dtype), b) for a, b in zip(narrow.split(256), wide.split(256), strict=True))


def _describe_broken(weight: Tensor, broken: int) -> str:
    """Describes a weight with `broken` entries that are not finite in bf16."""
    if stored := count_nonfinite(weight, "master"):
        return f"{stored} non-finite weights"
    return f"{broken} weights beyond the largest bf16"


def _wide(view: str, weight: Tensor) -> bool:
    """Whether the view of a weight needs float64."""
    return view == "master" and weight.dtype == torch.float64
