"""One lane of a launch: a process that executes Dagster runs one after the other on a shared Ray.

It is a process, since Dagster's runs in threads of one process can deadlock in its logging configuration.
"""

import logging
import multiprocessing
import os
import signal
import threading
import time
import traceback
import warnings
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import cache
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Event
from multiprocessing.util import Finalize

import dagster as dg

from assets import failures, progress, sqlite
from assets.definitions import defs
from assets.instance import home, local_instance
from assets.progress import Stopped
from pipelines.runs.cluster.attach import cluster, start_idle_actor
from pipelines.runs.trajectories.training import Host

_ray_errors: list[Exception] = []  # why this process could not join Ray
SILENT = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@dataclass(frozen=True)
class ProgressEvent:
    """A progress event of a run, sent to the launch."""

    recipe: str
    seed: int
    phase: str
    share: float
    seconds: float


@dataclass(frozen=True)
class Outcome:
    """How a Dagster run ended: its failure if any, non-finite values that its checks reported, and its wall seconds."""

    failure: str | None
    wall: float
    problems: list[str] = field(default_factory=list)


def open_lane(events: "Queue[ProgressEvent]", stop: Event, address: "Queue[str]", trains: bool) -> None:
    """Initialise this process: join the Ray at `address`, start an actor if it `trains`, forward progress events.

    The address comes through a queue, since Ray starts while this process imports. The process ends with its parent.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the launch decides, through `stop`
    warnings.filterwarnings("ignore")
    for library in ("dagster", "sqlalchemy"):  # an interrupt in either logs a traceback of its own
        logging.getLogger(library).setLevel(logging.CRITICAL)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end_with_parent() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
    sqlite.keep_open()
    with suppress(Exception):  # while Ray starts; the first run opens it again, and tells what is wrong
        _instance()
    if not (ray := address.get()):
        os._exit(1)  # there is none: the launch is ending
    os.environ["RAY_ADDRESS"] = ray
    session = ExitStack()
    try:
        session.enter_context(cluster())
    except Exception as error:  # raised here it would end this process, and be told as a death
        _ray_errors.append(error)
        return
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # so too, once Ray has set its own, which prints a C++ stack trace
    if trains:
        start_idle_actor(Host)
    session.callback(sqlite.release)
    Finalize(None, session.close, exitpriority=10)

    def pass_on(recipe: str, seed: int, phase: str, share: float, seconds: float) -> None:
        if stop.is_set():
            raise Stopped
        events.put(ProgressEvent(recipe, seed, phase, share, seconds))

    progress.listeners.append(pass_on)


def start_process() -> None:
    """Do nothing: the first call of a lane starts its process."""


def execute(job: str, partition: str, assets: tuple[str, ...]) -> Outcome:
    """Execute one Dagster run of `assets` (if empty, of the whole job) for one partition; an exception is its
    failure.
    """
    begun = time.perf_counter()
    try:
        failure, problems = _execute_job(job, partition, assets)
    except BaseException as error:  # a panic of Polars is no Exception
        failure, problems = _explain(error), []
    return Outcome(failure, time.perf_counter() - begun, problems)


def _execute_job(job: str, partition: str, assets: tuple[str, ...]) -> tuple[str | None, list[str]]:
    """The run's failure, if any, and the non-finite values that its checks reported."""
    if _ray_errors:
        raise _ray_errors[0]
    result = defs.resolve_job_def(job).execute_in_process(
        instance=_instance(),
        partition_key=partition,
        asset_selection=[dg.AssetKey(name) for name in assets] or None,
        raise_on_error=False,
        run_config=SILENT,
    )
    problems = [
        line
        for check in result.get_asset_check_evaluations()
        if check.check_name == "weights_finite" and not check.passed
        for line in str(check.metadata["problems"].value).splitlines()
    ]
    return None if result.success else reason(result), problems


def _explain(error: BaseException) -> str:
    """An error in one line; the traceback of an unforeseen error is written beside Dagster's record."""
    if line := failures.describe_foreseen(error):
        return line
    log = home() / "unforeseen.log"
    with suppress(OSError), open(log, "a") as file:
        file.write("".join(traceback.format_exception(error)))
    return f"{failures.describe_unforeseen(error)}; its traceback is in {log}, and the same command goes on from here"


@cache
def _instance() -> dg.DagsterInstance:
    """This process's instance, cached: opening one reads the whole history of its database's schema."""
    return local_instance()


def reason(result: dg.ExecuteInProcessResult) -> str:
    """The reason of a blocking check or of the first failed step, in one line."""
    for check in result.get_asset_check_evaluations():
        if check.blocking and not check.passed:
            return f"{check.check_name}: {'; '.join(str(check.metadata['problems'].value).splitlines())}"
    return failures.reason(result.all_events)
