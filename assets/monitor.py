"""Guard-rails: checks that a run's update stayed in the band of reference runs, and that its own guard did not trip."""

from collections.abc import Sequence

import dagster as dg
import polars as pl

from assets import metadata
from opd_ops.recipe import Recipe
from pipelines.store.objects import Store
from pipelines.studies.study import Study

NAME, ASSET = "within_band", "update_norm"
SPEC = dg.AssetCheckSpec(
    NAME,
    asset=ASSET,
    description="The update's stable rank, how it changes, its overlap with its earlier self and its norm stay inside "
    "the band of reference runs: for an arm of the suite core its own other seeds, for any other arm OPD.",
)
GUARD = dg.AssetCheckSpec(
    "guard_rail", asset="training", description="The guard that the recipe carries, if it carries one, has not tripped."
)


def within_band(store: Store, study: Study, recipe: Recipe, seed: int) -> dg.AssetCheckResult:
    """Judge a measured run from its tables. It passes, with a note, if there is no reference yet."""
    found, _ = judge_run(store, [reference_of(study, recipe)], recipe.name, seed)
    return found


def judge_run(
    store: Store, references: Sequence[str], recipe: str, seed: int, asset: str = ASSET
) -> tuple[dg.AssetCheckResult, int]:
    """The check of a measured run against all complete runs of its references, and the rows behind it.

    The rows of an imported run are stored in the table `monitor`. No weights are read.
    """
    from pipelines.regimes import bands
    from pipelines.runs.geometry import monitor

    try:
        guardrails = monitor.calibrate_bands(store, references, without=(recipe, seed), projected=False)
        run = monitor.watch_run(store, recipe, seed, projected=False)
        rows = monitor.judge_run(run, guardrails)
    except ValueError as error:  # too few references, or a model of another size
        named = ", ".join(references)
        return _result(asset, True, {"verdict": "no reference yet", "reference": named, "reason": str(error)}), 0
    if recipe.startswith(monitor.EXTERNAL):
        monitor.write_rows(store, run, rows)
    trips = bands.find_trips(rows)
    decides = [trip for trip in trips if trip.view == run.view]
    known = rows.filter(rows["inside"].is_not_null(), rows["view"] == run.view)
    first = f"left at step {decides[0].step}: {decides[0].quantity}" if decides else "inside"
    found = {
        "verdict": first if decides or not known.is_empty() else "the references' bands do not reach its norms",
        "reference": str(guardrails),
        "references_that_leave_the_others_band": guardrails.false_alarms(run.view),
        "view": run.view,
        "values_inside": int(known["inside"].sum()),
        "values": known.height,
        "left": metadata.small_table([trip._asdict() for trip in trips]),
    }
    return _result(asset, not decides, found), rows.height


def reference_of(study: Study, recipe: Recipe) -> str:
    """The recipe that a run is compared with."""
    core = any(arm.name == recipe.name for arm in study.arms())
    return recipe.name if core else f"{study.name}.opd"


def check_guard(losses: pl.DataFrame) -> dg.AssetCheckResult:
    """Whether the recipe's guard stayed quiet in training; passes for a recipe without a guard."""
    steps = losses["tripped"].drop_nulls()
    return dg.AssetCheckResult(
        check_name=GUARD.name,
        asset_key="training",
        passed=steps.is_empty(),
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"verdict": "untripped" if steps.is_empty() else f"tripped at step {steps[0]}"},
    )


def _result(asset: str, passed: bool, found: dict) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        check_name=NAME,
        asset_key=asset,
        passed=passed,
        severity=dg.AssetCheckSeverity.WARN,
        metadata=found,
    )
