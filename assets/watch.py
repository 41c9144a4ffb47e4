"""Training runs elsewhere: a sensor finds new checkpoints, and each is judged against its reference band.

The store lists the watched prefixes (`opd watch`); an external trajectory is a dynamic partition named as its import.
"""

import hashlib
import json
from typing import Any

import dagster as dg

from assets import metadata, monitor, switches
from assets.failures import fail_in_one_line
from assets.partitions import WATCHED, external, same, watched
from assets.progress import Tracker
from assets.resources import ClusterResource, StoreResource
from opd_ops.geometry import VERSION
from pipelines.lake import TABLES
from pipelines.runs.external import watchlist

checkpoints = dg.AssetSpec(
    "external",
    description="Checkpoints of a training run elsewhere, measured by `opd measure` or under a prefix of `opd watch`; "
    "they stay where they are.",
    partitions_def=external,
    **metadata.asset_arguments("trajectories", "safetensors", version="made elsewhere"),
)


class Arrived(dg.Config):
    """The steps to measure; if empty, all complete ones."""

    steps: list[int] = []


@dg.asset(
    name="monitor",
    partitions_def=watched,
    deps=[dg.AssetDep(checkpoints, partition_mapping=same)],
    **metadata.asset_arguments("geometry", "parquet", "polars", version=f"engine {VERSION}"),
    description=TABLES["monitor"].meaning,
    metadata={"dagster/column_schema": metadata.columns("monitor")},
    check_specs=[
        dg.AssetCheckSpec(
            monitor.NAME,
            asset="monitor",
            description="The update of a watched run stays inside the band of the runs it is held against.",
        )
    ],
    pool=WATCHED,
)
def monitored(
    context: dg.AssetExecutionContext, config: Arrived, store: StoreResource, cluster: ClusterResource
) -> dg.MaterializeResult:
    """Measure the new checkpoints of one watched run, and judge all of them."""
    from pipelines.runs.external import checkpoint_folder, imports
    from pipelines.runs.geometry import monitor as runs
    from pipelines.runs.verdicts import reporting
    from pipelines.studies.study import Measurement

    opened = store.open()
    with fail_in_one_line():
        watch = watchlist.read(opened, context.partition_key)
        found = checkpoint_folder.list_checkpoints(watch.prefix, watch.base)
        snapshots = [(step, ref) for step, ref in found.snapshots if not config.steps or step in config.steps]
        imported = imports.plan_import(opened, found.base, snapshots, Measurement(tables=runs.TABLES), watch.name)
        tracker = Tracker(context, imported.recipe, 0)
        with cluster.session(needed=not imported.fresh):
            problems = imports.measure_import(imported, serial=cluster.serial, progress=tracker.measured)
        check, rows = monitor.judge_run(opened, watch.against, imported.recipe, 0, asset="monitor")
        reporting.publish_import(opened, imported.recipe)
    made = metadata.part(opened, "monitor", recipe=imported.recipe, seed=0) if rows else None
    return dg.MaterializeResult(
        metadata=(made.facts() if made else {})
        | metadata.report(imported.recipe)
        | {
            "prefix": watch.prefix,
            "steps": ", ".join(map(str, imported.steps)),
            "problems": metadata.problems(problems),
        },
        data_version=dg.DataVersion(digest(imported.record["snapshots"])),
        check_results=[check],
    )


job = dg.define_asset_job("watched", [monitored], description="Measure and monitor the checkpoints of a run elsewhere.")


@dg.sensor(
    name="watch",
    job=job,
    minimum_interval_seconds=60,
    default_status=switches.default_status("watch"),
    description="Looks every minute under the prefixes that `opd watch` names and lists, and monitors checkpoints that "
    f"stood still for two looks. What it has seen of each prefix is its cursor. {switches.how_to_switch('watch')}",
)
def sensor(context: dg.SensorEvaluationContext, store: StoreResource) -> dg.SensorResult:
    """Poll once. The cursor holds, by name, the steps already requested and the stamps of the others."""
    opened, before = store.open(), json.loads(context.cursor or "{}")
    after: dict[str, Any] = {}
    arrived: dict[str, list[int]] = {}
    events, troubles = [], []
    for name in watchlist.list_watches(opened):
        try:
            watch = watchlist.read(opened, name)
            state = before.get(name, {})
            if state.get("prefix") != watch.prefix:
                state = {"prefix": watch.prefix, "told": [], "seen": {}}
            after[name], ready = _poll_watch(watch, state)
        except ValueError as error:  # of one prefix; the others are looked under all the same
            after |= {name: before[name]} if name in before else {}
            troubles.append(f"{name}: {error}")
            continue
        if watch.base is None and after[name]["seen"] and not after[name]["told"]:
            troubles.append(f"{name}: {watch.prefix} holds no step 0 yet; name its first weights by `opd watch --base`")
        if ready:
            arrived[name] = ready
            facts = {"dagster/uri": watch.prefix, "steps": ", ".join(map(str, ready))}
            tags = {"dagster/data_version": digest(after[name]["told"])}
            events.append(dg.AssetMaterialization("external", partition=name, metadata=facts, tags=tags))
    for trouble in troubles:
        context.log.warning(trouble)
    cursor = json.dumps(after, sort_keys=True)
    if not arrived:
        return dg.SensorResult(skip_reason="; ".join(troubles) or "no checkpoint has become ready", cursor=cursor)
    added = [
        definition.build_add_request([name for name in arrived if name not in known])
        for definition in (external, watched)
        for known in (set(context.instance.get_dynamic_partitions(str(definition.name))),)
    ]
    return dg.SensorResult(
        run_requests=[
            dg.RunRequest(
                run_key=f"{name}:{digest([after[name]['prefix'], after[name]['told']])}",
                partition_key=name,
                run_config={"ops": {"monitor": {"config": {"steps": steps(after[name])}}}},
            )
            for name in arrived
        ],
        dynamic_partitions_requests=added,
        asset_events=events,
        cursor=cursor,
    )


def _poll_watch(watch: watchlist.Watch, state: dict[str, Any]) -> tuple[dict[str, Any], list[int]]:
    """The state after a poll, and the steps from 1 up that became ready, once there is a base. Errors: as for
    `poll_folder`.
    """
    from pipelines.runs.external.watching import poll_folder

    told = dict(state["told"])
    ready, seen = poll_folder(watch.prefix, told, {int(step): stamp for step, stamp in state["seen"].items()})
    new = {step: seen[step] for step, _ in ready}
    if watch.base is None and 0 not in told | new:
        return state | {"seen": seen}, []
    waiting = {step: stamp for step, stamp in seen.items() if step not in new}
    after = {"prefix": watch.prefix, "told": sorted((told | new).items()), "seen": waiting}
    return after, sorted(step for step in new if step > 0)


def steps(state: dict[str, Any]) -> list[int]:
    """All requested steps, so that a run after a failed one also measures the steps of the failed one."""
    return [step for step, _ in state["told"] if step > 0]


def digest(facts: Any) -> str:
    """Sixteen hexadecimal digits of the digest of a JSON value."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
