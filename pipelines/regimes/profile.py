"""A trajectory as curves over the norm of its update, so that runs can be compared at equal norm.

Size is the mean over projections of ||W_t - W_0||_F / ||W_0||_F. Curves are interpolated linearly
over the logarithm of the norm, and never extrapolated.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl

from pipelines.lake.schemas import TABLES
from pipelines.regimes.diagnostics import DIAGNOSTICS, Diagnostic
from pipelines.statistics.metrics import PROJECTIONS
from pipelines.statistics.samples import NEARBY, weighted_mean
from pipelines.studies.pairs import nearest_step

KEYS = ("study", "recipe", "seed", "view")
DENSE = 0.01  # changed share of the weights from which the shuffled null is smooth in the step: within 3 %
Run = tuple[str, int]  # recipe, seed


@dataclass(frozen=True, kw_only=True)
class Point:
    """A trajectory at one norm. step: the first step with that norm. values, errors: by diagnostic, on the compared
    scale."""

    norm: float
    step: float
    values: dict[str, float]
    errors: dict[str, float]


@dataclass(frozen=True, kw_only=True, eq=False)
class Profile:
    """One run in one view. Arrays have one entry per snapshot with an update; NaN is not measured.

    values, errors: by diagnostic, logarithms if it is compared so. similar: value and error bound by diagnostic
    and pair of steps. shapes: (role, stable rank of noise of that shape) of its matrices.
    """

    study: str
    recipe: str
    seed: int
    view: str
    objective: str | None
    steps: np.ndarray
    norms: np.ndarray
    values: dict[str, np.ndarray]
    errors: dict[str, np.ndarray]
    similar: dict[tuple[str, int, int], tuple[float, float]]
    shapes: frozenset[tuple[str, float | None]]

    def end_at(self, step: int) -> "Profile":
        """The same trajectory, ended at a snapshot. Errors: ValueError for a step that was not measured."""
        if step not in self.steps:
            sizes = ", ".join(map(str, self.steps))
            raise ValueError(f"{self.recipe} seed {self.seed} has no measured step {step}; it has: {sizes}")
        mask = self.steps <= step
        return Profile(
            **vars(self)
            | {
                "steps": self.steps[mask],
                "norms": self.norms[mask],
                "values": {name: value[mask] for name, value in self.values.items()},
                "errors": {name: error[mask] for name, error in self.errors.items()},
            }
        )

    def end(self) -> Point:
        """The last snapshot."""
        return self._point(len(self.steps) - 1, len(self.steps) - 1, 0.0)

    def point_at_norm(self, norm: float) -> Point | None:
        """The point where the update first has this norm; None if it never has, or is larger from the first snapshot
        on."""
        sizes, target = np.log(self.norms), np.log(norm)
        if target < sizes[0]:
            return None
        after = np.flatnonzero(sizes >= target)
        if not len(after):
            return None
        last = int(after[0])
        if sizes[last] == target:
            return self._point(last, last, 0.0)
        return self._point(last - 1, last, float((target - sizes[last - 1]) / (sizes[last] - sizes[last - 1])))

    def _point(self, before: int, after: int, weight: float) -> Point:
        """Between two snapshots; similarities are those of the nearer one."""

        def between(curve: np.ndarray) -> float:
            return float((1 - weight) * curve[before] + weight * curve[after]) if weight else float(curve[before])

        values = {name: between(value) for name, value in self.values.items()}
        errors = {name: between(error) for name, error in self.errors.items()}
        step = int(self.steps[after if weight > 0.5 else before])
        for diagnostic in DIAGNOSTICS:
            if diagnostic.share is not None:
                values[diagnostic.name], errors[diagnostic.name] = self._similarity(diagnostic, step)
        return Point(
            norm=float(np.exp(between(np.log(self.norms)))), step=between(self.steps), values=values, errors=errors
        )

    def _similarity(self, diagnostic: Diagnostic, end: int) -> tuple[float, float]:
        """Of the snapshot nearest to the diagnostic's share of `end` steps, and of that at `end`; NaN without one."""
        assert diagnostic.share is not None
        step = nearest_step(map(int, self.steps), end, diagnostic.share)
        if step is None or abs(step / end - diagnostic.share) > NEARBY + 1e-9:
            return float("nan"), float("nan")
        return self.similar.get((diagnostic.name, step, end), (float("nan"), float("nan")))


def read_profiles(tables: Mapping[str, pl.LazyFrame], runs: Iterable[Run]) -> dict[tuple[str, int, str], Profile]:
    """The profiles of these runs by (recipe, seed, view); runs and views without an update norm are absent."""
    run_keys = set(runs)
    frames = {name: _rows(tables, name, run_keys) for name in {"update_norm", *(d.table for d in DIAGNOSTICS)}}
    nulls = _rows(tables, "nulls", run_keys)
    frames["update_spectrum"] = _add_shuffled_rank(frames["update_spectrum"], nulls, frames["update_support"])
    sizes = (
        frames["update_norm"]
        .group_by(*KEYS, "step")
        .agg(
            norm=weighted_mean("relative_norm", "matrix"),
            objective=pl.col("objective").first(),
            shapes=pl.struct("role", pl.col("iid_stable_rank").round(6)).unique(),
        )
    )
    counts = frames["update_support"].group_by(*KEYS, "step").agg(numel=pl.col("numel").sum())
    curves = {d.name: _average_matrices(d, frames[d.table]) for d in DIAGNOSTICS}
    whole, weights, *parts = pl.collect_all([sizes, counts, *curves.values()])
    means = dict(zip(curves, parts, strict=True))
    return {
        (recipe, seed, view): _profile((study, recipe, seed, view), part, weights, means)
        for (study, recipe, seed, view), part in sorted(
            whole.filter(pl.col("norm") > 0).partition_by(*KEYS, as_dict=True).items()
        )
        if (recipe, seed) in run_keys
    }


def _rows(tables: Mapping[str, pl.LazyFrame], name: str, runs: set[Run]) -> pl.LazyFrame:
    frame = tables.get(name, pl.LazyFrame(schema=TABLES[name].schema))
    recipes, seeds = sorted({recipe for recipe, _ in runs}), sorted({seed for _, seed in runs})
    return frame.filter(pl.col("recipe").is_in(recipes), pl.col("seed").is_in(seeds), pl.col("role").is_in(PROJECTIONS))


def _add_shuffled_rank(spectrum: pl.LazyFrame, nulls: pl.LazyFrame, support: pl.LazyFrame) -> pl.LazyFrame:
    """Add the effective rank of the same update with shuffled entries to each row.

    Nulls are measured at few steps; between them it is interpolated linearly in log(step), where at least DENSE of the
    weights have changed. With fewer the interpolation is wrong by up to a sixth, so there is no value, as before the
    first null.
    """
    keys = (*KEYS, "step", "matrix")
    null = nulls.filter(pl.col("null") == "shuffled").select(*keys, shuffled="effective_rank")
    changed = support.select(*keys, changed=1 - pl.col("unchanged"))
    between = pl.col("shuffled").interpolate_by(pl.col("step").log()).over(*KEYS, "matrix")
    return (
        spectrum.join(null, on=keys, how="left")
        .join(changed, on=keys, how="left")
        .with_columns(shuffled=pl.coalesce("shuffled", pl.when(pl.col("changed") >= DENSE).then(between)))
        .filter(pl.col("shuffled").is_not_null())
        .drop("changed")
    )


def _average_matrices(diagnostic: Diagnostic, frame: pl.LazyFrame) -> pl.LazyFrame:
    """Columns of the run, step (step_other), value and error; not in logarithms yet."""
    over = 1.0 if diagnostic.over is None else pl.col(diagnostic.over)
    error = pl.lit(None, pl.Float64()) if diagnostic.error is None else pl.col(diagnostic.error)
    rows = frame.filter(*(pl.col(key) == value for key, value in diagnostic.where))
    rows = rows.with_columns(value=pl.col(diagnostic.column) / over, bound=error / over)
    steps = ("step",) if diagnostic.share is None else ("step", "step_other")
    return (
        rows.filter(pl.col("value").is_not_null())
        .group_by(*KEYS, *steps)
        .agg(value=weighted_mean("value", "matrix", diagnostic.weight), error=weighted_mean("bound", "matrix"))
    )


def _profile(
    key: tuple[str, str, int, str], sizes: pl.DataFrame, weights: pl.DataFrame, means: Mapping[str, pl.DataFrame]
) -> Profile:
    study, recipe, seed, view = key
    run_keys = dict(zip(KEYS, key, strict=True))
    sizes = sizes.sort("step").join(weights.filter(**run_keys).select("step", "numel"), on="step", how="left")
    values, errors, similar = {}, {}, {}
    for diagnostic in DIAGNOSTICS:
        rows = means[diagnostic.name].filter(**run_keys)
        if diagnostic.share is not None:
            for row in rows.iter_rows(named=True):
                similar[diagnostic.name, row["step"], row["step_other"]] = (row["value"], row["error"] or 0.0)
            continue
        joined = sizes.select("step", "numel").join(rows, on="step", how="left").sort("step")
        value = joined["value"].cast(pl.Float64).fill_null(float("nan")).to_numpy()
        error = joined["error"].fill_null(1 / joined["numel"]).fill_null(0.0).to_numpy()
        if diagnostic.log:
            with np.errstate(divide="ignore", invalid="ignore"):
                value, error = np.log(value), error / value
            value = np.where(np.isfinite(value), value, np.nan)
        values[diagnostic.name], errors[diagnostic.name] = value, error
    return Profile(
        study=study,
        recipe=recipe,
        seed=seed,
        view=view,
        objective=sizes["objective"][0],
        steps=sizes["step"].to_numpy(),
        norms=sizes["norm"].to_numpy(),
        values=values,
        errors=errors,
        similar=similar,
        shapes=frozenset((shape["role"], shape["iid_stable_rank"]) for shape in sizes["shapes"][0]),
    )
