"""A whole study through Dagster, from one process: `opd study run NAME` starts `python -m assets.launch NAME`.

Every item of the plan is a Dagster run of one partition, executed here on one shared Ray, two at a time. What the store
already holds is reused. Exit codes: 0 done, 1 a run failed, 2 bad input, 3 non-finite weights, 130 interrupted.
"""

import argparse
import logging
import multiprocessing
import signal
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Event

import dagster as dg

from assets import failures, lane, offers
from assets.instance import local_instance
from assets.plan import LANES, Item, outlook, plan
from pipelines import lake
from pipelines.cli.layout import wrap_text
from pipelines.cli.study_summary import summarise_study
from pipelines.progress import Board, duration
from pipelines.runs.cluster import address, free_memory, token
from pipelines.runs.cluster.attach import cluster
from pipelines.runs.resources import needs
from pipelines.runs.verdicts import comparing
from pipelines.store.objects import Store, default_uri
from pipelines.store.trajectory import Trajectory
from pipelines.studies.catalog import find_study, study_arg
from pipelines.studies.data import data_lines
from pipelines.studies.study import Study


@dataclass
class Account:
    """Wall seconds over both lanes, by purpose."""

    training: float = 0.0
    measuring: float = 0.0
    all: float = 0.0

    @property
    def orchestration(self) -> float:
        return max(0.0, self.all - self.training - self.measuring)

    def __str__(self) -> str:
        share = 100 * self.orchestration / self.all if self.all else 0.0
        return (
            f"training {duration(self.training)}, measuring {duration(self.measuring)}, "
            f"orchestration {duration(self.orchestration)} ({share:.0f} %)"
        )


class Launch:
    """Execute a plan in `LANES` processes that share one Dagster record and one Ray."""

    def __init__(self, store: Store, study: Study, items: list[Item], instance: dg.DagsterInstance) -> None:
        self.store, self.study, self.instance = store, study, instance
        # What was compared before these runs is stale, whatever is in the store now.
        self.adds = any(item.trains or item.measures for item in items)
        self.reused = [item for item in items if self._reusable(item)]
        self.items = [item for item in items if item not in self.reused]
        self.board = Board({item.name: item.cost for item in self.items})
        self.widest = max((len(item.name) for item in self.items), default=0)
        self.account = Account()
        self.failures: list[str] = []
        self.problems: list[str] = []
        self.trained: dict[tuple[str, int], float] = {}  # wall seconds of work in this launch

    def go(self) -> None:
        """Run every item whose parents are done, two at a time. Errors: KeyboardInterrupt once both lanes have
        stopped.
        """
        begun = time.perf_counter()
        spawn = multiprocessing.get_context("spawn")
        events, stop = spawn.Queue(), spawn.Event()
        trains = any(item.trains for item in self.items)
        addresses = spawn.Queue()
        listening = threading.Thread(target=self._listen, args=(events,), daemon=True)
        listening.start()
        try:
            with (
                require_token(),
                ProcessPoolExecutor(LANES, spawn, lane.open_lane, (events, stop, addresses, trains)) as lanes,
            ):
                try:
                    for _ in range(LANES):  # a process starts with its first call: both import while Ray starts
                        lanes.submit(lane.start_process)
                    with share_ray() as ray, interrupt_on_sigterm():
                        for _ in range(LANES):
                            addresses.put(ray)
                        self.account.all += time.process_time() + time.perf_counter() - begun  # imports, Ray's start
                        self._work(lanes, stop)
                finally:
                    for _ in range(LANES):  # a lane that still waits for an address ends
                        addresses.put("")
        finally:
            events.put(None)
            listening.join()
            self.board.close()

    def _work(self, lanes: ProcessPoolExecutor, stop: Event) -> None:
        """Fill the lanes, and wait for both before Ray ends."""
        try:
            self._fill(lanes)
        except KeyboardInterrupt:
            stop.set()
            raise
        except BrokenProcessPool:
            lost = "a process of this launch was killed, as when memory runs out"
            self.failures.append(f"{lost}; the same command continues from here")
        finally:
            lanes.shutdown()

    def _fill(self, lanes: ProcessPoolExecutor) -> None:
        """Keep the lanes busy until no item can run."""
        waiting, finished = list(self.items), {item.name for item in self.reused}
        running: dict[Future[lane.Outcome], Item] = {}
        while True:
            ready = [item for item in waiting if finished.issuperset(item.needs)]
            for item in ready[: LANES - len(running)]:
                waiting.remove(item)
                running[lanes.submit(lane.execute, item.job, item.partition, item.assets)] = item
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                item = running.pop(future)
                if self._settle_item(item, future.result()):
                    finished.add(item.name)

    def _reusable(self, item: Item) -> bool:
        """Whether the item is complete and Dagster has a record of its partition."""
        if item.trains or item.measures:
            return False
        if item.compares and (self.adds or not comparing.is_compared(self.store, self.study)):
            return False
        return str(item.partition) in self.instance.get_materialized_partitions(dg.AssetKey(item.asset))

    def _settle_item(self, item: Item, outcome: lane.Outcome) -> bool:
        """Record the item's seconds and print how it ended; True if it succeeded."""
        self.account.all += outcome.wall
        self.problems += outcome.problems
        if item.run is not None:
            recipe, seed = item.run
            self.account.training += self.trained.pop((recipe.name, seed), 0.0)
            timing = lake.read_partition(self.store, "timing", recipe=recipe.name, seed=seed) if item.measures else None
            if timing is not None:
                self.account.measuring += float(sum(timing.filter(phase="measure")["wall_s"].to_list()))
        if outcome.failure is not None:
            self.failures.append(f"{item.name}: {outcome.failure}")
            self.board.say(f"  {item.name:<{self.widest}} failed: {outcome.failure}")
            return False
        self.board.update(item.name, 1.0)
        self.board.say(f"  {item.name:<{self.widest}} {self._words(item)}, {duration(outcome.wall)}")
        return True

    def _words(self, item: Item) -> str:
        if item.run is None:
            return "done"
        recipe, seed = item.run
        end = Trajectory(self.store, recipe.name, seed).end()
        assert end is not None
        row = max(end["evaluation"], key=lambda row: row["temperature"])
        done = ", ".join(verb for verb, is_so in (("trained", item.trains), ("measured", item.measures)) if is_so)
        return f"{done or 'found'}: {end['step']} steps, accuracy {row['accuracy']:.3f}"

    def _listen(self, events: "Queue[lane.ProgressEvent | None]") -> None:
        """Show the lanes' progress until None arrives."""
        while (heard := events.get()) is not None:
            if heard.phase == "train":
                self.trained[heard.recipe, heard.seed] = heard.seconds
            for item in self.items:
                if item.run and (item.run[0].name, item.run[1]) == (heard.recipe, heard.seed) and item.cost > 1:
                    rest = 1 - item.split
                    done = item.split * heard.share if heard.phase == "train" else item.split + rest * heard.share
                    self.board.update(item.name, done, f"{item.name}: {heard.phase} {100 * heard.share:.0f} %")


@contextmanager
def interrupt_on_sigterm() -> Iterator[None]:
    """Treat SIGTERM as Ctrl-C within the block. Ray's own handler would print a C++ stack trace."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def require_token() -> AbstractContextManager[None]:
    """Check before any lane starts: create a token for a Ray of our own, or require an answer from another Ray.

    Errors: ValueError as for `address.require_ray`.
    """
    if (given := address.read_address()) == address.LOCAL:
        return token.require_token()
    address.require_ray(given)
    return nullcontext()


@contextmanager
def share_ray() -> Iterator[str]:
    """The address of a Ray that this process starts for the lanes, unless RAY_ADDRESS names one.

    Errors: as for `cluster`.
    """
    if (given := address.read_address()) != address.LOCAL:
        address.require_ray(given)
        yield given
        return
    with cluster():
        import ray

        yield ray.get_runtime_context().gcs_address


def launch(name: str, suites: list[str], recipes: list[str], seeds: list[int]) -> int:
    """Run a study and print its verdicts; returns the exit code."""
    try:
        free_memory.require_address_space()
        study, store = find_study(name), Store(default_uri())
        arms, numbers = study.select(suites, recipes, seeds)
        store.require_writable()
        if study.weights and not store.exists(f"{study.weights}/config.json"):
            raise ValueError(f"{store.uri}/{study.weights} holds no weights: run `make weights` first")
        items = plan(store, study, arms, numbers)
        needs.require([item.run[0] for item in items if item.run and item.trains])
        instance = local_instance()
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    with instance:
        offers.offer(instance, offers.of_jobs(study, ((item.job, item.partition) for item in items)))
        run = Launch(store, study, items, instance)
        print(wrap_text(study.title))
        reused = f", {len(run.reused)} complete and reused" if run.reused else ""
        print(wrap_text(f"{len(items)} Dagster runs{reused}, in {store.uri}"), flush=True)
        for line in data_lines(study):
            print(wrap_text(line))
        try:
            if run.items:
                if run.adds:
                    print(wrap_text(outlook(study, run.items)), flush=True)
                run.go()
        except KeyboardInterrupt:
            print("interrupted: the same command continues from here", file=sys.stderr)
            return 130
    for failure in run.failures:
        print(f"error: {failure}", file=sys.stderr)
    if run.failures:
        if not comparing.read_tables(store, study)["update_norm"].head(1).collect().is_empty():
            print(wrap_text(f"a page of what is measured: opd report {study_arg(study.name)}"), file=sys.stderr)
        return 1
    print(f"\n{summarise_study(store, study, suites, str(run.account) if run.account.all else '')}")
    for problem in run.problems:
        print(f"error: {problem}", file=sys.stderr)
    return 3 if run.problems else 0


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m assets.launch", description=__doc__)
    parser.add_argument("study")
    parser.add_argument("--suite", action="append", default=[])
    parser.add_argument("--recipe", action="append", default=[])
    parser.add_argument("--seed", action="append", type=int, default=[])
    given = parser.parse_args(arguments)
    for library in ("dagster", "sqlalchemy"):  # an interrupt in either logs a traceback of its own
        logging.getLogger(library).setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore")
    return launch(given.study, given.suite or ["core"], given.recipe, given.seed)


if __name__ == "__main__":
    sys.exit(failures.run_command(lambda: main(sys.argv[1:])))
