"""The check that says whether a run's update stayed inside the band of reference runs."""

import dagster as dg

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


def within_band(store: Store, study: Study, recipe: Recipe, seed: int) -> dg.AssetCheckResult:
    """Judge a measured run from its tables. Passes, and says so, where there is no reference yet."""
    from pipelines.report import bands
    from pipelines.report.readings import QUANTITIES
    from pipelines.runs import monitor

    reference = reference_of(study, recipe)
    try:
        guardrails = monitor.calibrated(store, [reference], without=(recipe.name, seed), projected=False)
        run = monitor.watched(store, recipe.name, seed, projected=False)
        judged = monitor.judge(run, guardrails)
    except ValueError as error:  # too few references, or a model of another size
        return _result(True, {"verdict": "no reference yet", "reference": reference, "reason": str(error)})
    trips = bands.trips(judged)
    decides = [trip for trip in trips if trip.view == run.view]
    known = judged.filter(judged["inside"].is_not_null(), judged["view"] == run.view)
    first = f"left at step {decides[0].step}: {decides[0].quantity}" if decides else "inside"
    return _result(
        not decides,
        {
            "verdict": first if decides or not known.is_empty() else "the references' bands do not reach its norms",
            "reference": str(guardrails),
            "references_that_leave_the_others_band": guardrails.false_alarms(run.view, QUANTITIES),
            "view": run.view,
            "values_inside": int(known["inside"].sum()),
            "values": known.height,
            "left": metadata.small_table([trip._asdict() for trip in trips]),
        },
    )


def reference_of(study: Study, recipe: Recipe) -> str:
    """The recipe that a run is held against."""
    core = any(arm.name == recipe.name for arm in study.arms())
    return recipe.name if core else f"{study.name}.opd"


def _result(passed: bool, found: dict) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        check_name=NAME,
        asset_key=ASSET,
        passed=passed,
        severity=dg.AssetCheckSeverity.WARN,
        metadata=found,
    )
