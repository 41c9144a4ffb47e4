"""kill -9 at random moments: every run ends with the bytes and tables of one that nothing disturbed.

A driver trains and measures runs in a process of its own, or `opd study run` does so through Dagster (`study`). Whoever
is to be killed is looked for among the processes that descend from it, killed after a random time, and again, until
there were enough kills; a driver that ended is started again at once, whatever its actors still do. Then the store is
compared, object by object.
"""

import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from pipelines.runs.geometry.measuring import measure_run
from pipelines.runs.trajectories.training import train
from pipelines.store.objects import Store
from tests.chaos import driver
from tests.pipelines.runs import mini
from tests.processes import command_line, kill, list_family, wait_for_end

RUNS = 3  # of one driver
PATIENCE = 900.0  # seconds for a driver to finish what nobody disturbs any more, on a busy machine
# How a victim's process is called, and the longest wait between finding it and killing it, in seconds.
VICTIMS: dict[str, tuple[str, float]] = {
    "trainer": ("ray::Host", 1.5),
    "rollout actor": ("ray::EngineActor", 1.0),
    "measuring worker": ("ray::measure_matrix", 0.3),
    "raylet": ("/raylet ", 6.0),
    "driver": ("", 12.0),
    "Dagster run worker": ("--multiprocessing-fork", 12.0),  # a lane of a launch
}


@dataclass(frozen=True)
class Outcome:
    """kills: delivered; runs: that ended; lost: what differs from the undisturbed ones, by object."""

    victim: str
    kills: int
    runs: int
    lost: list[str]
    seconds: float

    def cells(self) -> list[str]:
        seeds = (re.search(r"/seed[-=](\d+)/", key) for key in self.lost)
        alike = self.runs - len({found[1] if found else "0" for found in seeds})
        return [self.victim, str(self.kills), f"{alike} of {self.runs}", f"{self.seconds:.0f} s"]


def kept(store: Store) -> dict[str, bytes]:
    """What must not depend on who was killed: not the proofs of weight pushes, times, or measurements in pieces."""
    aside = ("lake/sync/", "bases/", "reports/")
    found = mini.contents(store).items()
    return {key: data for key, data in found if "/measured/" not in key and not key.startswith(aside)}


class Undisturbed:
    """What is disturbed, and how its store ends otherwise.

    A store with the parents of the runs, and what the runs leave when nothing happens to them.
    """

    def __init__(self, folder: Path, runs: int = RUNS) -> None:
        self.folder, self.runs = folder / "undisturbed", runs
        store = Store(f"file://{self.folder}")
        train(store, mini.arm("pre"), 0, serial=True)
        self.parents = kept(store)
        for seed in range(runs):
            train(store, driver.recipe(crew=False), seed, serial=True)
            measure_run(store, driver.recipe(crew=False), seed, driver.CUTS, serial=True)
        self.whole = kept(store)

    def command(self, store: Store) -> tuple[list[str], dict[str, str]]:
        """What is given again and again until it ends with 0, and variables of its environment."""
        return [sys.executable, "-m", "tests.chaos.driver", store.uri, str(self.runs)], {}

    def seed(self, store: Store) -> None:
        """Put the parents into a store."""
        for key, data in self.parents.items():
            store.write(key, data)

    def differs(self, store: Store) -> list[str]:
        """Names of the objects of a store that are not those of undisturbed runs."""
        found = kept(store)
        return sorted(key for key in self.whole.keys() | found.keys() if self.whole.get(key) != found.get(key))


def disturb(victim: str, kills: int, undisturbed: Undisturbed, folder: Path, seed: int = 0) -> Outcome:
    """Kill `victim` so many times, over as many batches of runs as that takes."""
    chance, begun = random.Random(f"{victim}{seed}"), time.monotonic()
    delivered, runs, lost = 0, 0, list[str]()
    while delivered < kills:
        store = Store(f"file://{folder}/{victim.replace(' ', '-')}-{runs}")
        undisturbed.seed(store)
        delivered += _batch(victim, kills - delivered, store, undisturbed, chance)
        runs += undisturbed.runs
        lost += undisturbed.differs(store)
    return Outcome(victim, delivered, runs, lost, time.monotonic() - begun)


def _batch(victim: str, kills: int, store: Store, undisturbed: Undisturbed, chance: random.Random) -> int:
    """Kills delivered until the batch's runs were whole."""
    name, longest = VICTIMS[victim]
    delivered, seen = 0, set[psutil.Process]()
    try:
        while True:
            with _driver(store, undisturbed) as running:
                until = time.monotonic() + PATIENCE
                while running.poll() is None:
                    seen.update(family := list_family([running.pid]))
                    found = _choose(family, name, chance) if delivered < kills else None
                    if found is None:
                        time.sleep(0.02)
                    elif _passed(chance.uniform(0, longest), running) and name in command_line(found):
                        delivered += kill([found])
                        until = time.monotonic() + PATIENCE
                    if time.monotonic() > until:
                        raise TimeoutError(f"{PATIENCE:g} s after the last kill of a {victim} the driver was not done")
            if running.returncode == 0:
                return delivered
    finally:
        # What outlived its driver by seconds may write while the successor runs, which is part of the test.
        kill(wait_for_end([one for one in seen if "ray" in command_line(one)], 20.0))


@contextmanager
def _driver(store: Store, undisturbed: Undisturbed) -> Iterator[subprocess.Popen[bytes]]:
    """A driver over the store, which is killed where the block fails."""
    command, more = undisturbed.command(store)
    inherited = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    with open(Path(store.path("")).with_suffix(".log"), "ab") as log:
        running = subprocess.Popen(command, stdout=log, stderr=log, env=inherited | more)
    try:
        yield running
    finally:
        if running.poll() is None:
            running.kill()
        running.wait()


def _choose(family: list[psutil.Process], name: str, chance: random.Random) -> psutil.Process | None:
    """One of a driver's processes that is called `name`; the driver itself, the first, where the name is empty."""
    victims = [process for process in family[1:] if name in command_line(process)] if name else family[:1]
    return chance.choice(victims) if victims else None


def _passed(seconds: float, running: subprocess.Popen[bytes]) -> bool:
    """Wait; False when the driver ended before."""
    try:
        running.wait(seconds)
    except subprocess.TimeoutExpired:
        return True
    return False
