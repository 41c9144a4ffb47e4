"""Runs of this store and imported ones against their references: readings, bands, refusals."""

import json

import polars as pl
import pytest
import torch
from safetensors.torch import save_file

from opd_ops.recipe.reaction import Guard
from pipelines import lake
from pipelines.regimes import bands
from pipelines.regimes.readings import MEASURED, QUANTITIES
from pipelines.runs.external.imports import measure_import, plan_import
from pipelines.runs.geometry import monitor
from pipelines.runs.geometry.measuring import list_tasks, measure_tasks
from pipelines.studies.study import Measurement
from tests.pipelines.runs.planted import STEPS, Q, plant, weights

NAME = "model.layers.0.self_attn.q_proj"


@pytest.fixture
def references(store):
    """Three complete, straight runs of s.ref."""
    for seed in range(3):
        plant(store, "s.ref", seed)
    return store


@pytest.fixture
def imported(store, tmp_path):
    """imported(name, **how): checkpoints elsewhere, measured under that name, and deleted=(steps) afterwards."""

    def make(name, steps=STEPS, deleted=(), **how):
        refs = {}
        for step in steps:
            folder = tmp_path / name / f"step-{step}"
            folder.mkdir(parents=True)
            save_file(weights(step, 0, **how), folder / "model.safetensors")
            (folder / "config.json").write_text(json.dumps({"tie_word_embeddings": True}))
            refs[step] = str(folder)
        given = [(step, ref) for step, ref in refs.items() if step]
        measure_import(plan_import(store, refs[0], given, Measurement(tables=monitor.TABLES), name), serial=True)
        for step in deleted:
            (tmp_path / name / f"step-{step}" / "model.safetensors").unlink()

    return make


def at(run, quantity, view="master"):
    rows = run.readings.filter(quantity=quantity, view=view)
    return dict(rows.select("step", "value").iter_rows())


def verdict(rows, quantity, view="master"):
    return rows.filter(quantity=quantity, view=view)["inside"].to_list()


def test_a_straight_run_is_read_as_what_it_is(store):
    plant(store, "s.ref", 0)
    run = monitor.watch_run(store, "s.ref", 0)
    assert (str(run), run.study, run.view, run.problems) == ("s.ref seed 0", "s", "master", ())
    assert run.shapes == {NAME: (40, 24)}
    assert sorted(set(run.readings["quantity"])) == sorted(QUANTITIES)
    one = (1 - 0.8**48) / (1 - 0.8**2)  # sum of 0.8^2i over sigma_1 = 1
    assert at(run, "stable_rank") == pytest.approx(dict.fromkeys(STEPS[1:], one), rel=1e-4)  # fp32 weights
    later = dict.fromkeys(STEPS[2:], 1.0)
    for quantity in ("stable_rank_ratio", "similarity_previous", "similarity_projected"):
        assert at(run, quantity).pop(1) is None
        assert {step: value for step, value in at(run, quantity).items() if step > 1} == pytest.approx(later, abs=1e-3)
    norms = at(run, "relative_norm")
    assert norms[16] == pytest.approx(16 * norms[1], rel=1e-4)


def test_a_run_that_takes_random_steps_is_less_like_its_projected_end(store):
    plant(store, "s.ref", 0)
    plant(store, "s.walk", 0, turns=1.0)
    straight, walk = (at(monitor.watch_run(store, name), "similarity_projected") for name in ("s.ref", "s.walk"))
    # Chance is 16 / 24, and today's update is half of what is projected.
    assert all(walk[step] < 0.95 and straight[step] > 0.999 for step in STEPS[2:])


def test_a_measured_run_an_unmeasured_one_and_one_in_training_read_alike(store):
    trajectory = plant(store, "s.ref", 0, turns=0.3)
    unmeasured = monitor.watch_run(store, "s.ref", 0).readings
    columns = {"study": "s", "recipe": "s.ref", "seed": 0}
    rows = measure_tasks(list_tasks(trajectory, list(STEPS[1:]), columns, Measurement()), serial=True).rows
    for table in monitor.TABLES:
        lake.write(store, table, rows[table], recipe="s.ref", seed=0)
    assert monitor.watch_run(store, "s.ref", 0).readings.equals(unmeasured)
    plant(store, "s.open", 0, turns=0.3, end=False)
    still = monitor.watch_run(store, "s.open", 0).readings
    assert still.drop("recipe").equals(unmeasured.drop("recipe"))
    assert lake.read_partition(store, "update_norm", recipe="s.open", seed=0) is None


def test_one_snapshot_is_enough_to_be_read(store):
    plant(store, "s.open", 0, steps=(0, 1), end=False)
    run = monitor.watch_run(store, "s.open", 0)
    assert at(run, "stable_rank")[1] > 1 and at(run, "similarity_previous") == {1: None}


def test_readings_grow_with_the_run_and_projections_are_computed_once(store, monkeypatch):
    from pipelines.runs.geometry import projecting

    seen = []
    project = projecting.project_end
    monkeypatch.setattr(projecting, "project_end", lambda course: (seen.append(course.wanted), project(course))[1])
    plant(store, "s.open", 0, steps=STEPS[:4], end=False)
    monitor.watch_run(store, "s.open", 0)
    monitor.watch_run(store, "s.open", 0)
    plant(store, "s.open", 0, end=False)
    grown = monitor.watch_run(store, "s.open", 0)
    assert seen == [((2, 1), (4, 2)), ((8, 4), (16, 8))]
    plant(store, "s.once", 0)
    assert monitor.watch_run(store, "s.once", 0).readings.drop("recipe").equals(grown.readings.drop("recipe"))


def test_a_new_seed_stays_inside_and_a_turning_run_leaves(references):
    rails = monitor.calibrate_bands(references, ["s.ref"])
    assert rails.references == ("s.ref seed 0", "s.ref seed 1", "s.ref seed 2")
    plant(references, "s.new", 3)
    plant(references, "s.walk", 0, turns=0.8)
    plant(references, "s.flat", 0, decay=0.95)
    found = {name: monitor.judge_run(monitor.watch_run(references, f"s.{name}", seed), rails) for name, seed in
             (("new", 3), ("walk", 0), ("flat", 0))}  # fmt: skip
    assert all(bands.find_trips(rows.filter(view="master")) == [] for name, rows in found.items() if name == "new")
    assert False not in verdict(found["new"], "stable_rank")
    left = {
        name: {trip.quantity for trip in bands.find_trips(rows.filter(view="master"))} for name, rows in found.items()
    }
    assert "similarity_previous" in left["walk"] and "similarity_projected" in left["walk"]
    assert "stable_rank" in left["flat"] and not {"similarity_previous", "stable_rank_ratio"} & left["flat"]


def test_a_reference_is_judged_without_itself(references):
    rails = monitor.calibrate_bands(references, ["s.ref"], without=("s.ref", 1))
    assert rails.references == ("s.ref seed 0", "s.ref seed 2")


def test_rows_fit_the_table_and_are_replaced(references):
    rails, run = monitor.calibrate_bands(references, ["s.ref"]), monitor.watch_run(references, "s.ref", 0)
    rows = monitor.judge_run(run, rails)
    assert rows.schema == lake.TABLES["monitor"].schema
    assert rows.height == 2 * len(QUANTITIES) * len(STEPS[1:])
    assert set(rows["reference"]) == {"s.ref seed 0, s.ref seed 1, s.ref seed 2"} and set(rows["study"]) == {"s"}
    monitor.write_rows(references, run, rows)
    monitor.write_rows(references, run, rows)
    assert lake.scan("monitor", references.uri).collect().equals(rows)


def test_incomplete_runs_are_no_reference(references):
    plant(references, "s.ref", 3, end=False)
    assert len(monitor.calibrate_bands(references, ["s.ref"]).references) == 3


def test_without_projections_measured_runs_count_and_no_weight_is_read(references, monkeypatch):
    with pytest.raises(ValueError, match="two complete reference runs"):
        monitor.calibrate_bands(references, ["s.ref"], projected=False)
    for seed in range(3):
        run = monitor.Trajectory(references, "s.ref", seed)
        work = list_tasks(run, list(STEPS[1:]), {"study": "s", "recipe": "s.ref", "seed": seed}, Measurement())
        for table, rows in measure_tasks(work, serial=True).rows.items():
            lake.write(references, table, rows, recipe="s.ref", seed=seed)
    monkeypatch.setattr(monitor, "measure_tasks", None)
    rails = monitor.calibrate_bands(references, ["s.ref"], projected=False)
    assert {quantity for _, quantity in rails.bands} == set(MEASURED)


def test_imported_checkpoints_are_read_and_may_be_references(references, imported):
    imported("mine")
    rails = monitor.calibrate_bands(references, ["s.ref", "external.mine"])
    assert rails.references[-1] == "external.mine"
    run = monitor.watch_run(references, "external.mine")
    assert run.study == "external" and str(run) == "external.mine"
    own = monitor.watch_run(references, "s.ref", 0).readings  # the same weights
    assert run.readings.drop("recipe").equals(own.drop("recipe"))


def test_a_checkpoint_that_is_gone_is_read_as_far_as_it_is_kept(references, imported):
    imported("mine", deleted=(4,))
    found = at(monitor.watch_run(references, "external.mine"), "similarity_projected")
    assert [step for step, value in found.items() if value is not None] == [2, 16]
    assert at(monitor.watch_run(references, "external.mine"), "similarity_previous")[8] is not None


def test_bf16_checkpoints_have_one_view(references, imported, tmp_path):
    refs = []
    for step in STEPS:
        folder = tmp_path / "half" / f"step-{step}"
        folder.mkdir(parents=True)
        save_file({name: w.bfloat16() for name, w in weights(step, 0).items()}, folder / "model.safetensors")
        refs.append((step, str(folder)))
    measurement = Measurement(tables=monitor.TABLES)
    measure_import(plan_import(references, refs[0][1], refs[1:], measurement, "half"), serial=True)
    run = monitor.watch_run(references, "external.half")
    assert run.view == "bf16" and set(run.readings["view"]) == {"bf16"}
    assert monitor.judge_run(run, monitor.calibrate_bands(references, ["s.ref"]))["inside"].count() > 0


def test_weights_that_are_not_finite_have_no_value_and_are_named(references):
    trajectory = plant(references, "s.broken", 0, steps=STEPS[:-1], end=False)
    broken = weights(16, 0)
    broken[Q][0, 0] = torch.nan
    trajectory.commit(16, broken, None)
    run = monitor.watch_run(references, "s.broken", 0)
    assert run.problems == (f"{NAME}: step 16: 1 non-finite weights",)
    rows = monitor.judge_run(run, monitor.calibrate_bands(references, ["s.ref"]))
    last = rows.filter(step=16)
    assert set(last["value"]) == {None} and set(last["reason"]) == {"no value at this step"}


def test_a_model_of_another_size_is_refused_in_one_line(references):
    plant(references, "s.small", 0, shape=(30, 24))
    rails = monitor.calibrate_bands(references, ["s.ref"])
    with pytest.raises(ValueError, match=f"s.small seed 0 has {NAME} 30x24 and s.ref seed 0 40x24") as caught:
        monitor.judge_run(monitor.watch_run(references, "s.small", 0), rails)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="a band holds for one model size"):
        monitor.calibrate_bands(references, ["s.ref", "s.small"])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("s.none", "there is no run s.none seed 0"),
        ("external.none", "opd measure --name none"),
        ("s.start", "no snapshot"),
    ],
)
def test_what_is_not_there_is_refused(store, name, message):
    plant(store, "s.start", 0, steps=(0,), end=False)
    with pytest.raises(ValueError, match=message):
        monitor.watch_run(store, name)


def test_too_few_references_are_refused(references):
    plant(references, "s.lone", 0)
    with pytest.raises(ValueError, match=r"of s\.lone, and there are: s\.lone seed 0"):
        monitor.calibrate_bands(references, ["s.lone"])
    with pytest.raises(ValueError, match=r"besides s\.lone seed 0, and there are: none"):
        monitor.calibrate_bands(references, ["s.lone"], without=("s.lone", 0))


def test_rails_are_points_of_the_band(references):
    rails = monitor.calibrate_bands(references, ["s.ref"])
    points = monitor.guard_rails(rails, "stable_rank")
    band = rails.bands["master", "stable_rank"]
    assert len(points) > 20 and all(
        band.interval_at(norm)[:2] == pytest.approx((low, high)) for norm, low, high in points
    )
    assert [norm for norm, _, _ in points] == sorted(norm for norm, _, _ in points)
    with pytest.raises(ValueError, match="no band of loss"):
        monitor.guard_rails(rails, "loss")


def test_a_guard_brings_its_rails_or_takes_those_of_its_reference(references):
    own = ((0.1, 1.0, 2.0),)
    assert monitor.resolve_guard(references, Guard(quantity="stable_rank", rails=own), "s.ref", 0) == own
    for seed in range(3):
        readings = monitor.watch_run(references, "s.ref", seed)
        assert readings.readings.height
        work = list_tasks(monitor.Trajectory(references, "s.ref", seed), list(STEPS[1:]),
                     {"study": "s", "recipe": "s.ref", "seed": seed}, Measurement())  # fmt: skip
        for table, rows in measure_tasks(work, serial=True).rows.items():
            lake.write(references, table, rows, recipe="s.ref", seed=seed)
    guard = Guard(quantity="similarity", reference="s.ref")
    rails = monitor.resolve_guard(references, guard, "s.other", 0)
    deciding = {"quantities": ("similarity_previous",), "projected": False}  # it alone trips the guard
    assert rails == monitor.guard_rails(
        monitor.calibrate_bands(references, ["s.ref"], **deciding), "similarity_previous"
    )
    two = monitor.calibrate_bands(references, ["s.ref"], without=("s.ref", 0), **deciding)
    assert monitor.resolve_guard(references, guard, "s.ref", 0) == monitor.guard_rails(two, "similarity_previous")


def test_a_whole_run_is_what_the_lake_of_several_views_says(references):
    rows = monitor.judge_run(monitor.watch_run(references, "s.ref", 0), monitor.calibrate_bands(references, ["s.ref"]))
    assert rows.filter(pl.col("inside").is_not_null())["references"].min() >= 2
    assert set(rows["view"]) == {"bf16", "master"}
