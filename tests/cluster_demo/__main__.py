"""`make cluster-demo`: a study over two Ray nodes, Postgres and S3 on this machine, one node killed on the way.

Two raylets with different resources, Dagster's code server, webserver and daemon with the command lines of
compose.yaml, SeaweedFS and Postgres, all on loopback and free ports. Every run of the plan is asked for over HTTP,
queued, and launched as a Ray job by dagster-ray's RayRunLauncher. While the second node trains, it is killed with
everything on it. The demo ends well when every item of the plan succeeded, `opd verify` finds nothing, and the arms
have the bytes that an undisturbed process gives. Exit code 1 otherwise, with the logs kept.
"""

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pipelines.runs.cluster import token
from tests.cluster_demo import postgres, study
from tests.cluster_demo.dagster import ENDED, Dagster, last
from tests.cluster_demo.nodes import Node, Ray
from tests.pipelines import seaweed

LIMIT = 1800.0  # seconds for all runs
MAIN, SECOND = "main", "second"
# A node takes as many runs as it has of run_worker, which is how the runs are spread: one here, two there.
NODES = {MAIN: {"run_worker": 1, MAIN: 1}, SECOND: {"run_worker": 2, SECOND: 1}}
ITEM = "opd/item"  # the tag by which a run and those that take its place are known
QUICK = {  # a lost node is noticed within seconds, not half a minute
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "5000",
    "RAY_health_check_failure_threshold": "4",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DASHBOARD_DISABLE_GRAFANA": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "HF_HUB_OFFLINE": "1",
}


@dataclass
class Kept:
    """What the demo saw: when it began, which node a Ray job stood on, and how the kill went."""

    begun: float = field(default_factory=time.monotonic)
    stood: dict[str, str] = field(default_factory=dict)  # Ray job and node
    processes: int = 0
    killed_at: float = 0.0
    noticed: float = 0.0
    running: dict[str, str] = field(default_factory=dict)  # items that ran at the kill, and their nodes
    steps: dict[str, int] = field(default_factory=dict)  # the last resume state they had

    def say(self, words: str) -> None:
        print(f"[{time.monotonic() - self.begun:5.0f} s] {words}", flush=True)


def main() -> int:
    for number in (signal.SIGTERM, signal.SIGHUP):  # end as Ctrl-C does, so that nothing is left behind
        signal.signal(number, signal.default_int_handler)
    folder = Path(tempfile.mkdtemp(prefix="opd-", dir="/tmp"))
    ended = False
    try:
        ended = demo(folder)
    except (RuntimeError, OSError) as error:  # a TimeoutError is an OSError
        print(f"error: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("interrupted: everything that was started is stopped", file=sys.stderr)
    if ended:
        shutil.rmtree(folder, ignore_errors=True)
        return 0
    print(f"logs: {folder}", file=sys.stderr)
    return 1


def demo(folder: Path) -> bool:
    """The whole of it; True when everything ended well. Errors: RuntimeError, TimeoutError."""
    kept = Kept()
    with ExitStack() as stack:
        objects = stack.enter_context(seaweed.running())
        kept.say(f"S3 {objects.endpoint}")
        database = stack.enter_context(postgres.running())
        kept.say(f"Postgres 127.0.0.1:{database['DAGSTER_PG_PORT']}")
        environment = ambient() | QUICK | dict(objects.environment) | database
        environment |= {"OPD_STORE": f"s3://{seaweed.BUCKET}/store", "OPD_LOGS_BUCKET": seaweed.BUCKET}
        environment |= {"OPD_CONCURRENT_RUNS": str(sum(int(given["run_worker"]) for given in NODES.values()))}
        environment |= token.token_variables(environment)
        ray = Ray(folder / "ray", environment)
        ray.folder.mkdir()
        environment["OPD_RAY_JOBS"] = ray.jobs
        dagster = Dagster(folder, environment)
        environment |= dagster.variables
        os.environ.update(environment)
        with stopping(ray), stopping(dagster):
            for name, resources in NODES.items():
                ray.add(name, 1, resources)
                kept.say(f"Ray node {name}: 1 CPU, {resources}")
            dagster.start()
            kept.say(f"Dagster 127.0.0.1:{dagster.ports['webserver']}")
            items = Items(dagster)
            kept.say(f"plan: {len(items.all)} Dagster runs, {sum(item.trains for item in items.all)} of them train")
            work(items, dagster, ray, kept)
            return conclude(items, dagster, ray, kept)


def ambient() -> dict[str, str]:
    """This process's environment without what would lead to other people's clusters, stores and databases."""
    foreign = ("RAY_", "DAGSTER_", "AWS_", "OPD_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    # As in the image: the job of a run is started by the name `dagster`.
    return kept | {"PATH": os.pathsep.join([str(Path(sys.executable).parent), kept.get("PATH", os.defpath)])}


@contextmanager
def stopping(running: Ray | Dagster) -> Iterator[None]:
    try:
        yield
    finally:
        running.stop()


class Items:
    """The plan's Dagster runs: which are asked for, and how far each is."""

    def __init__(self, dagster: Dagster) -> None:
        from assets import backfill, offers
        from assets.plan import plan
        from pipelines.store.objects import Store

        self.dagster = dagster
        self.store = Store(os.environ["OPD_STORE"])
        study.plant(self.store)
        self.study, self.arms = study.arms()
        items = plan(self.store, self.study, self.arms, [study.SEED])
        backfill.offer(dagster.address, offers.of_jobs(self.study, ((item.job, item.partition) for item in items)))
        self.all = [item for item in items if item.trains or item.measures or item.compares]  # not what is planted
        self.names = {item.name for item in self.all}
        self.asked: set[str] = set()
        self.runs: list[dict] = []

    def look(self) -> None:
        """Ask for every item whose needs have succeeded."""
        self.runs = self.dagster.runs()
        done = {run["tags"].get(ITEM) for run in self.runs if run["status"] == "SUCCESS"}
        for item in self.all:
            if item.name not in self.asked and done.issuperset(self.names.intersection(item.needs)):
                self.dagster.launch(item.job, item.assets, {"dagster/partition": item.partition, ITEM: item.name})
                self.asked.add(item.name)

    def of(self, name: str) -> list[dict]:
        """The item's runs, the first one first."""
        return [run for run in reversed(self.runs) if run["tags"].get(ITEM) == name]

    def running(self) -> list[dict]:
        return [run for run in self.runs if run["status"] == "STARTED"]

    @property
    def succeeded(self) -> int:
        return sum(any(run["status"] == "SUCCESS" for run in self.of(item.name)) for item in self.all)

    def lost(self) -> list[str]:
        """Items whose last run failed, with no other to come."""
        return [
            item.name
            for item in self.all
            if (runs := self.of(item.name))
            and runs[-1]["status"] in ENDED[1:]
            and (len(runs) > 2 or time.time() - (runs[-1]["endTime"] or time.time()) > 60)
        ]


def work(items: Items, dagster: Dagster, ray: Ray, kept: Kept) -> None:
    """Until everything has succeeded; the second node is killed on the way. Errors: RuntimeError, TimeoutError."""
    end = time.monotonic() + LIMIT
    said = -1
    while items.succeeded < len(items.all):
        if time.monotonic() > end:
            raise TimeoutError(f"{items.succeeded} of {len(items.all)} runs succeeded within {LIMIT:g} s")
        for service, process in dagster.running.items():
            if process.poll() is not None:
                raise RuntimeError(f"the {service} ended: {last(dagster.folder / f'{service}.log')}")
        items.look()
        if (count := items.succeeded) != said:
            said = count
            kept.say(f"{said} of {len(items.all)} done")
        if lost := items.lost():
            words = "; ".join(dagster.messages(items.of(lost[0])[-1]["runId"])[-3:])
            raise RuntimeError(f"{lost[0]} failed: {words}")
        observe(ray, kept)
        if not kept.killed_at and (victims := training(items, ray, kept)):
            kill(ray.nodes[1], victims, kept)
        if kept.killed_at and not kept.noticed and len(ray.alive()) == len(NODES) - 1:
            kept.noticed = time.monotonic() - kept.killed_at
            kept.say(f"Ray counts {len(ray.alive())} node")
        time.sleep(1.0)


def observe(ray: Ray, kept: Kept) -> None:
    """Which node every Ray job stands on."""
    from ray.job_submission import JobSubmissionClient

    try:
        jobs = JobSubmissionClient(ray.jobs).list_jobs()
    except (RuntimeError, OSError):  # busy: the next look will tell
        return
    for job in jobs:
        if job.submission_id and job.driver_node_id:
            kept.stood[job.submission_id] = ray.name_of(job.driver_node_id)


def training(items: Items, ray: Ray, kept: Kept) -> dict[str, str]:
    """Items that train on the second node, with the node of their run, once one of them has a resume state there."""
    from pipelines.store.trajectory import Trajectory

    found, kept.steps = {}, {}
    if any(run["status"] in ("STARTING", "QUEUED", "NOT_STARTED") for run in items.runs):
        return {}  # a run whose job dies before it begins waits for start_timeout_seconds
    for run in items.running():
        item = next((one for one in items.all if one.name == run["tags"].get(ITEM)), None)
        if item is None or item.run is None or not item.trains:
            continue
        recipe, seed = item.run
        trajectory = Trajectory(items.store, recipe.name, seed)
        if trajectory.is_registered() and trajectory.end() is None and (state := trajectory.load_resume()):
            kept.steps[item.name] = state[0]
        found[item.name] = kept.stood.get(f"dagster-run-{run['runId']}", "")
    return found if any(kept.steps.get(name) for name, node in found.items() if node == SECOND) else {}


def kill(node: Node, victims: dict[str, str], kept: Kept) -> None:
    """The second node, with its raylet, its trainers and the runs that stand on it."""
    kept.running, kept.killed_at = victims, time.monotonic()
    kept.processes = node.kill()
    words = ", ".join(
        f"{name} (on {place}, state of step {kept.steps.get(name, 0)})" for name, place in victims.items()
    )
    kept.say(f"killed node {node.name}: kill -9 to {kept.processes} processes, while there ran {words}")


def conclude(items: Items, dagster: Dagster, ray: Ray, kept: Kept) -> bool:
    """Say what was seen, and check what is in the store; True when it is whole."""
    wall = time.monotonic() - kept.begun
    kept.say(f"all {len(items.all)} done")
    nodes = Counter(node for job, node in kept.stood.items() if job.startswith("dagster-run-"))
    again = {item.name: items.of(item.name) for item in items.all if len(items.of(item.name)) > 1}
    verified = subprocess.run([sys.executable, "-m", "pipelines.cli", "verify"], capture_output=True, text=True)
    same = {recipe.name: undisturbed(items, recipe.name) for recipe in items.arms}
    print(f"\n{len(items.all)} items of the plan, {len(items.runs)} Dagster runs, in {wall:.0f} s")
    print(f"nodes: {', '.join(f'{name} ({nodes[name]} runs)' for name in NODES)}")
    print(f"killed: node {SECOND} at {kept.killed_at - kept.begun:.0f} s, {kept.processes} processes, ", end="")
    print(f"noticed by Ray after {kept.noticed:.0f} s; there ran {', '.join(kept.running)}")
    for name, runs in again.items():
        print(f"made again: {name}: {' -> '.join(run['status'] for run in runs)}")
    print(f"opd verify: exit code {verified.returncode}: {' '.join(verified.stdout.split())[:300]}")
    for name, is_same in same.items():
        print(f"{name}: final weights {'equal' if is_same else 'DIFFER from'} those of an undisturbed process")
    return verified.returncode == 0 and all(same.values())


def undisturbed(items: Items, name: str) -> bool:
    """Whether the arm's final weights are those that one process makes, over a store in memory."""
    from pipelines.runs.trajectories.training import train
    from pipelines.store.objects import Store
    from pipelines.store.trajectory import Trajectory

    alone = Store(f"memory://undisturbed-{secrets.token_hex(4)}")
    study.plant(alone)
    recipe = next(recipe for recipe in items.arms if recipe.name == name)
    end = Trajectory(items.store, name, study.SEED).end()
    return end is not None and train(alone, recipe, study.SEED, serial=True)["digest"] == end["digest"]


if __name__ == "__main__":
    sys.exit(main())
