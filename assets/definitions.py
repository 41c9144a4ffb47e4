"""The code location: every asset, check, job, schedule, sensor and resource as one object."""

import dagster as dg

from assets import automation, conditions, exhibits, geometry, models, notify, trajectories, transfer, verdicts, watch
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
        *exhibits.ASSETS,
        watch.checkpoints,
        watch.monitored,
    ],
    asset_checks=[conditions.current],
    jobs=automation.JOBS,
    sensors=automation.SENSORS,
    resources={
        "store": StoreResource(),
        "cluster": ClusterResource(),
        "hooks": notify.Hooks(),
        # No asset hands a value to another; Dagster's own would write pickles to a folder that a run's config names.
        "io_manager": dg.mem_io_manager,
    },
    # Work is spread by Ray inside a step; a process per step would start a Ray of its own each time.
    executor=dg.in_process_executor,
)
