"""What is said of a step's cost: its own seconds, those of the work when it was done, and what it had of Ray."""

import dataclasses

import pytest

from assets import effort
from assets.effort import Effort
from assets.resources import ClusterResource
from opd_ops.recipe import Resources, Workers
from pipelines import lake
from pipelines.studies.tiny import opd

ROWS = {"train": (10.0, 8.0), "evaluate": (2.0, 1.5), "measure": (5.0, 7.0), "base": (1.0, 0.5), "dagster": (3.0, 1.0)}


@pytest.fixture
def timed(store):
    keys = {"study": "tiny", "recipe": "tiny.opd", "seed": 0, "step": 4}
    rows = [keys | {"phase": phase, "wall_s": wall, "cpu_s": cpu} for phase, (wall, cpu) in ROWS.items()]
    lake.write(store, "timing", rows, recipe="tiny.opd", seed=0)
    return store


def test_the_phases_of_a_run_are_added_by_what_they_made(timed):
    trained = effort.read_seconds(timed, "tiny.opd", 0, without=effort.BESIDE)
    assert (trained["wall_s"], trained["cpu_s"]) == (12.0, 9.5)
    measured = effort.read_seconds(timed, "tiny.opd", 0, phases=effort.MEASURING)
    assert (measured["wall_s"], measured["cpu_s"]) == (5.0, 7.5)  # base factors are made while measuring
    assert "| base | 1 | 0.5 |" in measured["phases"].value
    assert (
        effort.read_seconds(timed, "tiny.opd", 1) == effort.read_seconds(timed, "tiny.opd", 0, phases=["verify"]) == {}
    )


def test_a_step_without_work_or_without_ray_says_so():
    for serial, needed, told in ((True, True, "not used: serial"), (False, False, "not used: found complete")):
        spent = Effort()
        with spent.session(ClusterResource(serial=serial), "a trainer", needed=needed):
            pass
        assert spent.facts()["ray"].startswith(told) and "ray_workers" not in spent.facts()
    assert set(Effort().alone()) == {"wall_s", "cpu_s"}


def test_the_processes_of_a_training_are_named_with_their_resources():
    where = Resources(gpus=0.5, threads=2, rollout=Workers(actors=2, gpus=0.25))
    told = effort.describe_trainer(dataclasses.replace(opd(), resources=where))
    assert told == "trainer 1 actor of 0.5 GPUs on 2 threads; rollouts 2 actors of 0.25 GPUs; teacher in the trainer"
