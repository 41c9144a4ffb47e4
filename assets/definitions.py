"""The code location: every asset, job, schedule and resource as one object."""

import dagster as dg

from assets import automation, geometry, models, trajectories, verdicts
from assets.resources import ClusterResource, StoreResource

defs = dg.Definitions(
    assets=[
        models.base,
        models.teacher,
        models.anchor,
        trajectories.run,
        geometry.geometry,
        verdicts.verdicts,
        verdicts.report,
    ],
    jobs=automation.JOBS,
    schedules=automation.SCHEDULES,
    resources={"store": StoreResource(), "cluster": ClusterResource()},
    # Work is spread by Ray inside a step; a process per step would start a Ray of its own each time.
    executor=dg.in_process_executor,
)
