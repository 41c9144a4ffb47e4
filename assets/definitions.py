"""The code location: every asset, job, schedule and resource as one object."""

import dagster as dg

from assets import automation, geometry, models, paper, trajectories, transfer, verdicts
from assets.resources import ClusterResource, StoreResource

defs = dg.Definitions(
    assets=[
        models.base,
        models.teacher,
        models.anchor,
        trajectories.run,
        geometry.geometry,
        transfer.transfer,
        transfer.regime,
        transfer.predictions,
        verdicts.verdicts,
        verdicts.report,
        *paper.ASSETS,
    ],
    jobs=automation.JOBS,
    schedules=automation.SCHEDULES,
    resources={"store": StoreResource(), "cluster": ClusterResource()},
    # Work is spread by Ray inside a step; a process per step would start a Ray of its own each time.
    executor=dg.in_process_executor,
)
