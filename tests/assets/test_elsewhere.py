"""A study whose arms start from another study's run, and learn from another study's model: planned and executed.

In a process of its own, since Dagster's partitions are made of the catalog when they are imported.
"""

import json
import os
import subprocess
import sys

import pytest

from pipelines.store.objects import Store
from pipelines.store.trajectory import Trajectory

HOME = """
from opd_ops.recipe import FinalOf, Horizon
from pipelines.studies.study import Measurement, Study
from tests.pipelines.runs.mini import arm

common = {"title": "", "seeds": (0,), "measurement": Measurement(k=(4,), hill_k=(4,))}
horizon = Horizon(steps=2, snapshots=(1,))

def of(name, **more):
    return arm(name, **({"horizon": horizon, "start": FinalOf(recipe="home.base", seed=0)} | more))

def study():
    base = arm("pre", study="home", arm="base", horizon=horizon)
    teacher, sft = of("teacher", study="home"), of("teacher", study="home", arm="sft")
    return Study(name="home", models=(base, teacher), suites={"core": (sft,)}, anchor="sft", **common)
"""
AWAY = """
from home import common, of
from opd_ops.recipe import FinalOf, Opd
from pipelines.studies.study import Study

def study():
    start = FinalOf(recipe="home.sft", seed=0)
    learning = Opd(teacher=FinalOf(recipe="home.teacher", seed=0))
    arms = of("opd", study="away", start=start, objective=learning), of("rlvr", study="away", start=start)
    return Study(name="away", models=(), suites={"core": arms}, anchor=None, **common)
"""
SCRIPT = """
import json, sys, warnings
from dataclasses import replace
import dagster as dg
warnings.filterwarnings("ignore")
from opd_ops.recipe import FinalOf, Horizon
from pipelines.store.objects import Store
from pipelines.store.trajectory import Trajectory
from pipelines.studies.catalog import find_study
from assets import lane, models, offers, plan
from assets.definitions import defs
from assets.partitions import run_key

away = find_study("away")
store, instance = Store(sys.argv[1]), dg.DagsterInstance.ephemeral()
resources = {"cluster": {"config": {"serial": True}}}

def execute(job, partition, assets=()):
    offers.offer(instance, {offers.BY_JOB[job]: [partition]})
    result = defs.resolve_job_def(job).execute_in_process(
        instance=instance, partition_key=partition, asset_selection=[dg.AssetKey(name) for name in assets] or None,
        raise_on_error=False, run_config=lane.SILENT | {"resources": resources},
    )
    return None if result.success else lane.reason(result)

said = {"early": execute("runs", run_key("away.rlvr", 0), plan.TRAINING)}
older = replace(away.arms()[1], horizon=Horizon(steps=3))
facts = {"identity": older.identity(), "fingerprint": older.fingerprint(), "inputs": {}, "model": {}}
Trajectory(store, "away.rlvr", 0).register(facts)  # of a recipe that was changed since, and never trained
items = plan.plan(store, away, list(away.arms()), [0])
said["items"] = [(item.name, item.job, str(item.partition), item.trains) for item in items]
said["failures"] = [execute(item.job, item.partition, item.assets) for item in items if not item.compares]
said["again"] = [item.name for item in plan.plan(store, away, list(away.arms()), [0])]
said["given"] = [models.describe_given_model(away, name)[1] for name in ("base", "teacher")]
for word, start in (("seed", FinalOf(recipe="home.sft", seed=4)), ("nowhere", FinalOf(recipe="nowhere.sft", seed=0))):
    try:
        plan.plan(store, away, [replace(away.arms()[1], arm="x", start=start)], [0])
    except ValueError as error:
        said[word] = str(error)
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """The store, and what the process said of its plans and runs."""
    folder = tmp_path_factory.mktemp("elsewhere")
    store = Store(f"file://{folder / 'store'}")
    for name, text in (("home", HOME), ("away", AWAY)):
        (folder / f"{name}.py").write_text(text)
    inherited = {name: value for name, value in os.environ.items() if name not in ("RAY_ADDRESS", "DAGSTER_HOME")}
    environment = inherited | {"PYTHONPATH": os.getcwd(), "OPD_STORE": store.uri}
    environment["OPD_STUDIES"] = f"{folder}/away.py,{folder}/home.py"
    command = [sys.executable, "-c", SCRIPT, store.uri]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr
    return store, json.loads(ended.stdout.splitlines()[-1])


def test_runs_of_another_study_are_planned_where_they_are_absent_each_in_its_own_job(done):
    _, said = done
    assert [tuple(item) for item in said["items"]] == [
        ("away weights", "models", "away", False),
        ("away teacher", "teachers", "away", False),
        ("home.base, seed 0", "models", "home", True),
        ("home.sft, seed 0", "runs", "home.sft|0", True),
        ("home.teacher, seed 0", "teachers", "home", True),
        ("away.opd, seed 0", "runs", "away.opd|0", True),
        ("away.rlvr, seed 0", "runs", "away.rlvr|0", True),
        ("comparison", "comparison", "away", False),
    ]


def test_the_plan_executes_and_the_arms_start_from_the_other_study(done):
    store, said = done
    assert said["failures"] == [None] * 7
    end = Trajectory(store, "home.sft", 0).end()["digest"]
    for arm in ("away.opd", "away.rlvr"):
        assert Trajectory(store, arm, 0).run()["inputs"]["start"] == end
        assert store.exists(f"lake/rotation/recipe={arm}/seed=0/part-0.parquet")
    teacher = Trajectory(store, "home.teacher", 0).end()["digest"]
    assert Trajectory(store, "away.opd", 0).run()["inputs"]["teacher"] == teacher


def test_complete_runs_of_another_study_are_not_planned(done):
    _, said = done
    assert said["again"] == [
        "away weights", "away teacher", "away.opd, seed 0", "away.rlvr, seed 0", "comparison"
    ]  # fmt: skip


def test_a_run_that_is_begun_too_early_names_the_command_that_makes_its_parent(done):
    _, said = done
    line = "away.rlvr seed 0 needs home.sft seed 0, which is not complete: train it first: opd study run "
    assert line in said["early"] and "/home.py --recipe home.sft --seed 0" in said["early"]


def test_a_changed_recipe_of_a_run_without_progress_goes_through_dagster(done):
    store, _ = done
    assert Trajectory(store, "away.rlvr", 0).end()["step"] == 2
    assert store.find("removed") == []


def test_a_study_that_trains_no_base_says_what_its_arms_start_from(done):
    _, said = done
    assert said["given"] == [
        "home.sft, seed 0: a run of another study, since away trains no base",
        "home.teacher, seed 0: a run of another study, since away trains no base",
    ]


def test_a_run_that_no_study_can_make_is_one_line(done):
    _, said = done
    assert said["nowhere"] == (
        "away.x seed 0 needs nowhere.sft seed 0, which is not complete, and no study is called 'nowhere': name the "
        "file of its study, OPD_STUDIES=./FILE.py"
    )
    assert said["seed"] == "study away needs home.sft seed 4, and study home has seeds 0"
