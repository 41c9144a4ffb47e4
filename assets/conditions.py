"""Conditions under which a study's comparison is made again, and how old it may get.

A comparison reads every run of its study. Dagster has no mapping from a study to its recipes, so an update of any run
is offered to the comparisons of all studies. `Behind` keeps the studies whose runs in the store have changed.
"""

import warnings
from datetime import datetime, timedelta
from functools import lru_cache

import dagster as dg

from assets import switches
from assets.partitions import STUDIES
from assets.resources import StoreResource
from pipelines.runs.verdicts import comparing
from pipelines.store.objects import Store, default_uri

MORNING = "0 7 * * *"  # after the night of the sweep


class Behind(dg.AutomationCondition):
    """The studies whose report was made from other runs or claims than today's."""

    @property
    def name(self) -> str:
        return "behind"

    @property
    def description(self) -> str:
        return "The study has runs, and its report was made from others"

    def evaluate(self, context: dg.AutomationContext) -> dg.AutomationResult:
        candidates, uri = context.candidate_subset, default_uri()
        partitions = candidates.expensively_compute_partition_keys()
        keys = {key for key in partitions if key and _is_behind_at(context.evaluation_time, uri, key)}
        return dg.AutomationResult(context, candidates.compute_intersection_with_partition_keys(keys))


@lru_cache(maxsize=64)
def _is_behind_at(_: datetime, uri: str, name: str) -> bool:
    """`is_behind`, cached within one tick, in which several assets ask."""
    return is_behind(Store(uri), name)


def is_behind(store: Store, name: str) -> bool:
    """Whether a study has measured runs that its report does not include, or that have changed since."""
    study = STUDIES[name]
    return bool(comparing.comparison_inputs(store, study)["runs"]) and not comparing.is_compared(store, study)


# Asked for or made since a run was made. What happens within one tick counts as before the run: `Behind` knows better.
HANDLED = (dg.AutomationCondition.newly_requested() | dg.AutomationCondition.newly_updated()).since(
    dg.AutomationCondition.any_deps_updated()
)
# Once for all runs that end together: not while one is on its way, and runs that nobody has begun are not waited for.
FOLLOW = (
    ~HANDLED
    & ~dg.AutomationCondition.any_deps_in_progress()
    & ~dg.AutomationCondition.in_progress()
    & Behind()  # last, since it reads the store
).with_label("follow")

# Of the latest comparison of any study: a week in which no study moved is worth a look, no more.
FRESH = dg.FreshnessPolicy.time_window(warn_window=timedelta(days=7), fail_window=timedelta(days=28))


@dg.asset_check(
    asset="report",
    description="No study has runs that its report was not made from. Looked at every morning.",
    automation_condition=dg.AutomationCondition.cron_tick_passed(MORNING, switches.read_timezone()),
)
def current(store: StoreResource) -> dg.AssetCheckResult:
    """Freshness by content: an old report is fresh if it was made from the runs as they are now."""
    opened = store.open()
    late = [name for name in STUDIES if is_behind(opened, name)]
    return dg.AssetCheckResult(
        passed=not late,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"behind": ", ".join(late) or "none", "remedy": "materialise verdicts and report of these studies"},
    )


with warnings.catch_warnings():
    warnings.simplefilter("ignore", dg.BetaWarning)
    sensor = dg.AutomationConditionSensorDefinition(
        "follow",
        target=dg.AssetSelection.groups("verdicts"),
        default_status=switches.default_status("follow"),
        minimum_interval_seconds=60,
        emit_backfills=False,
        use_user_code_server=True,  # `Behind` is a class of ours
        description="Compares a study's runs again once they have changed, and looks every morning for reports that "
        f"were left behind. {switches.how_to_switch('follow')}",
    )
