"""Planted weights through a real trajectory, range reads, tables and back; then real runs, on Ray and serially.

The file is longer than 350 lines because planted and real runs go through the same path and fixtures.
"""

import math
import re
from dataclasses import replace
from functools import partial

import numpy as np
import polars as pl
import pytest
import torch

from opd_ops.models import configuration, initialise
from pipelines import lake
from pipelines.runs.geometry import measuring
from pipelines.runs.geometry.measuring import TABLES, is_measured, measure_run
from pipelines.store.trajectory import Trajectory
from tests.pipelines.runs.conftest import CUTS, RIGHT, SPECTRUM, W0, K, M, N, U, orthonormal, turned

ANGLES = {1: 1e-6, 2: 1e-3, 3: 1.0, 4: 45.0}
PARTS = {"q": "self_attn.q", "v": "self_attn.v", "o": "self_attn.o", "up": "mlp.up", "down": "mlp.down"}
Q, V, OUT, UP, DOWN = (f"model.layers.0.{part}_proj" for part in PARTS.values())


def commit(store, recipe, snapshots, seed=0):
    """A complete run of the given snapshots (step: tensors), as training would leave it."""
    trajectory = Trajectory(store, recipe.name, seed)
    trajectory.register(
        {
            "identity": recipe.identity(),
            "fingerprint": recipe.fingerprint(),
            "inputs": {},
            "model": {},
            "provenance": {},
        }
    )
    for step, tensors in snapshots.items():
        trajectory.commit(step, tensors, None)
    last = max(snapshots)
    trajectory.finish(
        {"step": last, "digest": trajectory.digest(last), "snapshots": sorted(snapshots), "evaluation": []}
    )
    return trajectory


def lifted(rank):
    """W0 and `rank` equal singular values of 1/8 on fresh directions."""
    return W0 + 0.125 * orthonormal(M, rank, 3) @ orthonormal(N, rank, 4).T


def locked(step):
    """W0 and 16 directions: the same at steps 1 and 2, half of them exchanged at steps 3 and 4."""
    used = slice(0, 16) if step < 3 else slice(8, 24)
    update = (orthonormal(M, 24, 5)[:, used] * torch.linspace(0.2, 0.1, 16)) @ orthonormal(N, 24, 6)[:, used].T
    return W0 + step * update


def sparse(count):
    """W0 with its `count` smallest weights doubled."""
    w = W0.clone()
    w.view(-1)[w.abs().flatten().argsort()[:count]] *= 2.0
    return w


def shifted(step):
    """W0 with every singular value raised by step/100."""
    return (U * (SPECTRUM + step / 100)) @ RIGHT.T


@pytest.fixture(scope="module")
def planted(arm, tmp_path_factory):
    """rows(table, matrix, **equal) of a run in which every matrix changes in a planned way."""
    from pipelines.store.objects import Store

    store = Store(f"file://{tmp_path_factory.mktemp('planted')}")
    snapshots = {0: {f"{matrix}.weight": W0.clone() for matrix in (Q, V, OUT, UP, DOWN)}}
    for step, angle in ANGLES.items():
        planned = {Q: turned(angle), V: lifted(2**step), OUT: sparse(100 * step), UP: shifted(step), DOWN: locked(step)}
        snapshots[step] = {f"{matrix}.weight": weight for matrix, weight in planned.items()}
    recipe = arm("pre")
    commit(store, recipe, snapshots)
    assert measure_run(store, recipe, 0, CUTS, serial=True) == []

    def rows(table, matrix, **equal):
        found = lake.scan(table, store.uri).filter(pl.col("matrix") == matrix, view="master", **equal)
        return found.sort("step").collect().to_dicts()

    return rows


def test_planted_angles_come_back_from_the_lake(planted):
    for row in planted("rotation", Q, side="output"):
        theta = ANGLES[row["step"]]
        assert 0 < row["error_deg"] < 1e-9
        close = partial(pytest.approx, abs=row["error_deg"])
        assert row["angles_deg"] == [close(0), close(0), close(0), close(theta)]
        assert row["max_deg"] == close(theta)
        assert row["mean_deg"] == close(theta / K)
        assert row["rms_deg"] == close(theta / math.sqrt(K))
        assert row["gap"] == pytest.approx(1 / (N - 1))
    still = planted("rotation", Q, side="input")
    assert len(still) == 4 and all(row["max_deg"] <= row["error_deg"] for row in still)
    # An orthogonal factor leaves the spectrum where it is.
    assert all(row["nss"] < 1e-14 for row in planted("spectral_drift", Q))


def test_planted_ranks_come_back_from_the_lake(planted):
    for row in planted("update_spectrum", V):
        rank = 2 ** row["step"]
        # W_t - W0 is formed from stored float64 weights: 2^-52 of |W0| = 8.6 against 1/8 a direction.
        assert row["effective_rank_energy"] == pytest.approx(rank, rel=1e-12)
        assert row["effective_rank"] == pytest.approx(rank, rel=1e-10)
        assert row["energy_top16"] == pytest.approx(1.0, rel=1e-12)
    for row in planted("update_norm", V):
        rank, exactly = 2 ** row["step"], partial(pytest.approx, rel=1e-12)
        assert row["stable_rank"] == exactly(rank)
        assert row["spectral_norm"] == exactly(0.125)
        assert row["frobenius"] == exactly(0.125 * math.sqrt(rank))
        assert row["relative_norm"] == exactly(0.125 * math.sqrt(rank) / float(SPECTRUM.norm()))
    missing = {row["step"]: row["reason"] for row in planted("locking", V, side="output")}
    assert missing[1] == "sigma_16 of the update is numerically zero (step 1)"


@pytest.mark.parametrize(("side", "dimension"), [("output", M), ("input", N)])
def test_planted_subspaces_lock_and_unlock(side, dimension, planted):
    found = {(row["step"], row["step_other"]): row for row in planted("locking", DOWN, side=side)}
    assert {row["chance"] for row in found.values()} == {16 / dimension}
    # Subspaces are kept in f32: 2^-24 of each of 16 cosines.
    for pair in ((1, 2), (3, 4)):
        assert found[pair]["similarity"] == pytest.approx(1.0, abs=1e-6)
    for pair in ((1, 3), (1, 4), (2, 3), (2, 4)):
        assert found[pair]["similarity"] == pytest.approx(0.5, abs=1e-6)


def test_planted_sparsity_comes_back_from_the_lake(planted):
    for row in planted("update_support", OUT):
        assert (row["numel"], row["scope"]) == (M * N, "projection")
        assert row["unchanged"] == (M * N - 100 * row["step"]) / (M * N)
    for row in planted("localization", OUT, mask="low_magnitude", alpha=0.3):
        # The changed weights are the smallest: all inside a mask of 460 weights.
        assert row["density"] == pytest.approx(100 * row["step"] / (M * N))
        assert row["overlap"] == 1.0
    assert {row["rank"] for row in planted("localization", OUT, mask="principal", alpha=0.5)} == {N // 8}


def test_a_planted_spectral_shift_comes_back_from_the_lake(planted):
    for row in planted("spectral_drift", UP):
        expected = row["step"] / 100 * math.sqrt(N) / float(SPECTRUM.norm())
        assert row["nss"] == pytest.approx(expected, rel=1e-12)
        assert row["mirsky"] == pytest.approx(expected, rel=1e-12)  # the vectors did not move, so Mirsky is tight
    assert all(row["max_deg"] <= row["error_deg"] for row in planted("rotation", UP))


def test_rows_say_whose_they_are_and_what_they_depend_on(planted, arm):
    recipe = arm("pre")
    for table, matrix in (("rotation", Q), ("hill", V), ("update_support", OUT), ("locking", UP)):
        row = planted(table, matrix)[0]
        assert (row["study"], row["recipe"], row["seed"], row["layer"]) == ("mini", "mini.pre", 0, 0)
        assert row["role"] == matrix.rsplit(".", 1)[1].removesuffix("_proj")
        assert (row["objective"], row["optimizer"]) == ("sft", recipe.optimizer.name)
        assert (row["learning_rate"], row["weight_decay"], row["run_steps"]) == (1e-3, 0.1, 4)
        assert row["dtype"] == "fp64"
        assert row["method"] == f"{'equality' if table == 'update_support' else 'svd-f64'}/{measuring.VERSION}"


@pytest.mark.parametrize("name", ["opd"])
def test_ray_gives_the_rows_of_the_serial_twin(name, arm, seeded, tmp_path, workers):
    store = seeded(name)
    found, heard = {}, []
    for serial in (True, False):
        assert measure_run(store, arm(name), 0, CUTS, serial=serial, progress=lambda *done: heard.append(done)) == []
        found[serial] = {table: lake.read_partition(store, table, recipe=f"mini.{name}", seed=0) for table in TABLES}
        store.remove(f"runs/mini.{name}/seed-0/measured.json")
        store.remove(f"runs/mini.{name}/seed-0/measured")
    for table in TABLES:
        assert len(found[True][table]) > 0
        assert found[True][table].to_dicts() == found[False][table].to_dicts(), table
    trajectory = Trajectory(store, f"mini.{name}", 0)
    work = measuring.list_tasks(trajectory, trajectory.steps()[1:], {}, CUTS)
    done = [sum(task.cost for task in work[: count + 1]) for count in range(len(work))]
    counts = [(cost, done[-1]) for cost in done]
    assert heard[: len(work)] == counts
    # A slow matrix is reported again every second, and matrices may finish in another order.
    assert heard[-1] == counts[-1]
    assert [pair for pair in heard[len(work) :]] == sorted(heard[len(work) :])


@pytest.fixture
def opd(arm, seeded):
    """rows(table) of the measured opd arm."""
    store = seeded("opd")
    measure_run(store, arm("opd"), 0, CUTS, serial=True)
    return lambda table: lake.scan(table, store.uri).collect()


def test_every_matrix_step_and_view_has_its_rows_and_step_zero_none(opd):
    support = opd("update_support")
    assert sorted(support["step"].unique()) == [1, 3, 7]
    assert support.group_by("matrix", "step", "view").len()["len"].to_list() == [1] * (13 * 3 * 2)
    projections = {"q", "k", "v", "o", "gate", "up", "down"}
    assert set(support.filter(scope="projection")["role"]) == projections
    for table in set(TABLES) - {"update_support"}:
        rows = opd(table)
        assert set(rows["role"]) == projections
        assert set(rows["view"]) == {"bf16", "master"}
        assert 0 not in rows["step"]
        assert set(rows["dtype"]) == {"fp32"}
    assert set(opd("locking").select("step", "step_other").rows()) == {(1, 3), (1, 7), (3, 7)}


def test_weyl_mirsky_and_wedin_hold_on_the_rows(opd):
    keys = ["matrix", "step", "view"]
    slack = 1.0 + 1e-9  # rounding of sums and quotients in float64
    rows = opd("spectral_drift").join(opd("update_norm"), on=keys)
    assert len(rows) == 7 * 3 * 2
    base = rows["frobenius"] / rows["relative_norm"]
    assert (rows["nss"] <= rows["mirsky"] * slack).all()  # Mirsky
    assert np.allclose(rows["mirsky"], rows["relative_norm"], rtol=1e-12)
    rank = rows["role"].replace_strict({"k": 16, "v": 16}, default=32)
    assert (rows["nss"] * base <= rank.sqrt() * rows["spectral_norm"] * slack).all()  # Weyl, every value
    assert (rows["spectral_norm"] <= rows["frobenius"] * slack).all()
    turned = opd("rotation").filter(pl.col("max_deg").is_not_null()).join(opd("update_norm"), on=keys)
    bounded = turned.filter(pl.col("gap") > 2 * pl.col("spectral_norm"))
    assert len(bounded) > 10, "Wedin bounds enough rows to mean something"
    sine = np.sin(np.radians(bounded["max_deg"].to_numpy() - bounded["error_deg"].to_numpy()))
    norm, gap = bounded["spectral_norm"].to_numpy(), bounded["gap"].to_numpy()
    assert (sine <= norm / (gap - norm)).all()  # Wedin, with Weyl for the gap to W_t


def test_bf16_snapshots_have_one_view_and_the_numbers_of_fp32(arm, seeded, store):
    source = Trajectory(seeded("opd"), "mini.opd", 0)
    narrow = arm("pre")
    snapshots = {s: {name: ref.read().bfloat16() for name, ref in source.refs(s).items()} for s in source.steps()}
    commit(store, narrow, snapshots)
    for recipe in (arm("opd"), narrow):
        measure_run(store, recipe, 0, CUTS, serial=True)
    for table in TABLES:
        keep = pl.col("null") == "shuffled" if table == "nulls" else pl.lit(True)  # the other one follows the masters
        found = lake.scan(table, store.uri).filter(keep).drop("dtype", "objective")
        rows = found.filter(recipe="mini.pre").drop("recipe").collect()
        assert set(rows["view"]) == {"bf16"}
        assert rows.equals(found.filter(recipe="mini.opd", view="bf16").drop("recipe").collect()), table


def test_a_measurement_is_known_by_its_settings_engine_snapshots_and_tables(arm, seeded, monkeypatch):
    store, recipe = seeded("pre"), arm("pre")
    assert not is_measured(store, recipe, 0, CUTS)
    measure_run(store, recipe, 0, CUTS, serial=True)
    assert is_measured(store, recipe, 0, CUTS)
    assert not is_measured(store, recipe, 0, replace(CUTS, k=(4, 8)))
    assert not is_measured(store, recipe, 1, CUTS)
    monkeypatch.setattr(measuring, "map_tasks", None)
    assert measure_run(store, recipe, 0, CUTS) == []  # nothing is measured twice
    store.remove("lake/hill/recipe=mini.pre")
    assert not is_measured(store, recipe, 0, CUTS)
    monkeypatch.undo()
    measure_run(store, recipe, 0, CUTS, serial=True)
    assert is_measured(store, recipe, 0, CUTS)
    monkeypatch.setattr(measuring, "VERSION", 99)
    assert not is_measured(store, recipe, 0, CUTS)


def test_measuring_again_with_other_cuts_replaces_the_rows(arm, seeded):
    store, recipe = seeded("pre"), arm("pre")
    for cuts in ((4, 8), (8,)):
        measure_run(store, recipe, 0, replace(CUTS, k=cuts), serial=True)
        assert set(lake.scan("rotation", store.uri).collect()["k"]) == set(cuts)


def test_stopped_between_two_tables_neither_the_old_nor_the_new_cuts_are_vouched_for(arm, seeded, monkeypatch):
    store, recipe, others = seeded("pre"), arm("pre"), replace(CUTS, k=(8,))
    measure_run(store, recipe, 0, CUTS, serial=True)
    write = lake.write

    def stopping(store, table, rows, **partition):
        if table == "hill":
            raise KeyboardInterrupt
        return write(store, table, rows, **partition)

    with monkeypatch.context() as patch:
        patch.setattr(lake, "write", stopping)
        with pytest.raises(KeyboardInterrupt):
            measure_run(store, recipe, 0, others, serial=True)
    assert set(lake.scan("rotation", store.uri).collect()["k"]) == {8}
    assert not is_measured(store, recipe, 0, CUTS) and not is_measured(store, recipe, 0, others)
    measure_run(store, recipe, 0, CUTS, serial=True)
    assert set(lake.scan("rotation", store.uri).collect()["k"]) == {4}


def test_timing_keeps_the_phases_of_training(arm, seeded):
    store = seeded("pre")
    before = lake.read_partition(store, "timing", recipe="mini.pre", seed=0).to_dicts()
    measure_run(store, arm("pre"), 0, CUTS, serial=True)
    after = lake.read_partition(store, "timing", recipe="mini.pre", seed=0).to_dicts()
    assert after[:-1] == before  # no base factors were computed: these matrices are measured densely
    assert after[-1]["phase"] == "measure" and after[-1]["cpu_s"] > 0


def test_a_broken_weight_is_named_and_the_other_matrices_are_measured(arm, store):
    config = configuration(arm("pre").start.architecture, pad=0, bos=1, eos=2)
    base = initialise(config, 0)
    moved = {name: w * 1.01 for name, w in base.items()}
    moved[f"{Q}.weight"][0, :2] = float("nan")
    commit(store, arm("pre"), {0: base, 5: moved})
    problems = [f"{Q}: step 5: 2 non-finite weights"]
    assert measure_run(store, arm("pre"), 0, CUTS, serial=True) == problems
    assert measure_run(store, arm("pre"), 0, CUTS, serial=True) == problems, "a rerun does not forget them"
    matrices = lambda table: set(lake.scan(table, store.uri).collect()["matrix"])
    assert len(matrices("update_support")) == 13
    broken = lake.scan("rotation", store.uri).filter(matrix=Q).collect()
    assert len(matrices("rotation")) == 7 and set(broken["reason"]) == {"W_t has 2 non-finite weights"}
    assert broken["max_deg"].null_count() == len(broken)


def test_an_incomplete_run_is_not_measured(arm, store):
    with pytest.raises(ValueError, match=r"^runs/mini\.pre/seed-0 is not complete: train it before measuring$"):
        measure_run(store, arm("pre"), 0, CUTS, serial=True)


@pytest.mark.parametrize("step", [0, 3])
def test_an_absent_snapshot_is_named(step, arm, seeded):
    store = seeded("pre")
    store.remove(f"runs/mini.pre/seed-0/step-{step:08d}/manifest.json")
    with pytest.raises(ValueError, match=f"^runs/mini.pre/seed-0 has no committed snapshot of step {step}$"):
        measure_run(store, arm("pre"), 0, CUTS, serial=True)
    assert lake.scan("rotation", store.uri).collect().is_empty()


def test_the_dearest_matrices_go_first_and_rows_come_in_order_of_names(arm, seeded):
    store = seeded("pre")
    work = measuring.list_tasks(Trajectory(store, "mini.pre", 0), [1, 3], {}, CUTS)
    assert [task.cost for task in work] == sorted((task.cost for task in work), reverse=True)
    assert {task.role for task in work[:3]} == {"gate", "up", "down"}
    names = measuring.measure_tasks(work, serial=True).rows["update_support"]["matrix"].to_list()
    assert names == sorted(names) and len(set(names)) == 13


def test_the_tables_known_here_are_the_engines():
    from opd_ops.geometry import suite

    assert TABLES == suite.TABLES


def test_a_number_that_is_none_is_an_error_that_names_its_matrix(arm, store, monkeypatch):
    recipe = arm("pre")
    commit(store, recipe, {0: {f"{Q}.weight": W0.clone()}, 1: {f"{Q}.weight": turned(1.0)}})

    def broken(*_):
        raise RuntimeError("hill.index is not finite at step 1: nan")

    monkeypatch.setattr("opd_ops.geometry.suite.Matrix.snapshot", broken)
    with pytest.raises(RuntimeError, match=rf"^{re.escape(Q)}: hill\.index is not finite at step 1: nan$"):
        measure_run(store, recipe, 0, CUTS, serial=True)
