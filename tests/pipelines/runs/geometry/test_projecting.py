"""The similarity to the projected end, matrix by matrix and kept by run."""

import json
from dataclasses import replace

import pytest
import torch

from pipelines.regimes.readings import read_quantities
from pipelines.runs.geometry import monitor, projecting
from pipelines.runs.geometry.measuring import list_tasks, measure_tasks
from pipelines.runs.geometry.projecting import Course, project_end, with_projected
from pipelines.studies.study import Measurement
from tests.pipelines.runs.planted import STEPS, Q, plant, weights

PAIRS = ((2, 1), (4, 2), (8, 4), (16, 8))


@pytest.fixture
def course(store):
    """course(**how): the one matrix of a planted run, all of its steps wanted."""

    def make(wanted=PAIRS, **how):
        trajectory = plant(store, "s.ref", 0, **how)
        (task,) = list_tasks(trajectory, list(STEPS[1:]), {}, Measurement(tables=monitor.TABLES))
        line = tuple((one.step, one.before.weight, one.after.weight) for one in task.pairs)
        return Course(name=task.name, line=line, wanted=wanted)

    return make


def test_a_straight_line_is_its_own_end_in_the_masters_and_nearly_in_bf16(course):
    rows = project_end(course())
    assert [(row["step"], row["view"]) for row in rows] == [(step, view) for step, _ in PAIRS for view in
                                                           ("bf16", "master")]  # fmt: skip
    assert all(row["value"] > 0.999 and row["reason"] is None for row in rows if row["view"] == "master")
    rounded = [row["value"] for row in rows if row["view"] == "bf16"]
    assert max(rounded) < 0.999, "rounding noise goes ways of its own"


def test_a_step_that_the_matrix_lacks_has_no_row(course):
    whole = course()
    without = replace(whole, line=tuple(one for one in whole.line if one[0] != 4))
    assert {row["step"] for row in project_end(without)} == {2, 16}


def test_what_has_no_value_says_why(store, course):
    course()
    still = plant(store, "s.still", 0, steps=(0,), end=False)
    broken = weights(4, 0)
    broken[Q][0, 0] = torch.nan
    for step, tensors in ((1, weights(1, 0)), (2, weights(1, 0)), (4, broken)):
        still.commit(step, tensors, None)
    (task,) = list_tasks(still, [1, 2, 4], {}, Measurement(tables=monitor.TABLES))
    line = tuple((one.step, one.before.weight, one.after.weight) for one in task.pairs)
    rows = project_end(Course(name=task.name, line=line, wanted=((2, 1), (4, 2))))
    assert {row["value"] for row in rows} == {None}
    assert {(row["step"], row["reason"]) for row in rows} == {
        (2, "nothing has moved since the earlier snapshot"),
        (4, "weights are not finite"),
    }


def test_what_is_kept_is_of_these_very_weights(store, course, monkeypatch):
    one = course()
    columns = {"study": "s", "recipe": "s.ref", "seed": 0}
    trajectory = monitor.Trajectory(store, "s.ref", 0)
    rows = measure_tasks(
        list_tasks(trajectory, list(STEPS[1:]), columns, Measurement(tables=monitor.TABLES)), serial=True
    ).rows
    frames = [monitor.pl.DataFrame(rows[name], schema=monitor.lake.TABLES[name].schema) for name in monitor.TABLES]
    found, stamps = read_quantities(*frames), {step: f"stamp {step}" for step in STEPS}
    first = with_projected(store, "x", found, {one.name: one.line}, stamps, serial=True)
    kept = json.loads(store.read("x/projected.json"))
    assert sorted(map(int, kept)) == [2, 4, 8, 16] and kept["8"]["from"][1:] == ["stamp 0", "stamp 4", "stamp 8"]
    wanted = []
    monkeypatch.setattr(projecting, "project_end", lambda course: wanted.append(course.wanted) or project_end(course))
    assert with_projected(store, "x", found, {one.name: one.line}, stamps, serial=True).equals(first)
    assert wanted == []
    with_projected(store, "x", found, {one.name: one.line}, stamps | {4: "others"}, serial=True)
    assert wanted == [((4, 2), (8, 4))]
