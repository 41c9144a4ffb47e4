"""The default measurement is that of `opd measure`, is charged for base factors once, and is of planted checkpoints."""

import pytest
import torch

from pipelines import lake
from pipelines.store.objects import Store
from tests.bench import measuring, synthetic
from tests.bench.checkpoints import refs, write_trajectory
from tests.bench.shapes import Shape, counted, qwen3_8b, qwen_like

NAME = "model.layers.0.self_attn.q_proj.weight"


@pytest.fixture
def store(tmp_path):
    return Store(f"file://{tmp_path}/store")


def test_all_tables_are_written_and_a_kept_name_is_not_measured_again(store, tmp_path):
    paths = write_trajectory(tmp_path / "weights", [Shape(NAME, 24, 20)], "rl", 5)
    cost = measuring.measure(store, paths, "mine")
    assert cost.seconds > 0 and cost.base == 0.0 and cost.snapshots == cost.seconds  # dense: nothing is kept of W0
    tables = {
        table: lake.read_partition(store, table, recipe="external.mine", seed=0) for table in measuring.DEFAULT.tables
    }
    assert all(rows is not None and rows.height for rows in tables.values())
    assert tables["rotation"]["step"].unique().sort().to_list() == [1, 2, 3, 4, 5]
    steps = measuring.steps(store, "mine")
    assert list(steps) == list(measuring.DEFAULT.tables) and steps["rotation"] == 5 and steps["locking"] == 4
    assert steps["nulls"] == tables["nulls"]["step"].n_unique() > 0
    before = store.version("lake/rotation/recipe=external.mine/seed=0/part-0.parquet")
    measuring.measure(store, paths, "mine")
    assert store.version("lake/rotation/recipe=external.mine/seed=0/part-0.parquet") == before
    assert set(measuring.steps(store, "unknown").values()) == {0}


def test_base_factors_are_charged_to_the_first_measurement_alone(store, tmp_path):
    paths = write_trajectory(tmp_path / "weights", [Shape(NAME, 520, 530)], "rl", 1)
    first = measuring.measure(store, paths, "first", ("rotation",))
    second = measuring.measure(store, paths, "second", ("rotation",))
    assert 0 < first.base < first.seconds and second.base == 0.0
    assert set(lake.read_partition(store, "rotation", recipe="external.second", seed=0)["matrix"]) == {
        "model.layers.0.self_attn.q_proj"
    }
    assert lake.read_partition(store, "nulls", recipe="external.second", seed=0) is None


def test_a_problem_is_an_error(store, tmp_path, monkeypatch):
    monkeypatch.setattr(measuring.imports, "measure_import", lambda imported, serial: ["q: 3 non-finite weights"])
    paths = write_trajectory(tmp_path / "weights", [Shape(NAME, 8, 8)], "rl", 1)
    with pytest.raises(RuntimeError, match="the measurement mine has problems: q: 3 non-finite weights"):
        measuring.measure(store, paths, "mine")


def test_the_updates_of_a_trajectory_grow_in_one_direction_under_fresh_noise(tmp_path):
    w0 = synthetic.weight("heavy", 160, 200, 0)
    rel = 1.0  # so large that rounding to bf16 adds nothing to speak of
    updates = [w.double() - w0.double() for w in synthetic.trajectory(w0, "sft", rel, 4, 7)]
    sizes = [float(update.norm() / w0.double().norm()) for update in updates]
    assert sizes == pytest.approx([0.25, 0.5, 0.75, 1.0], rel=0.01)
    rank = synthetic.UPDATES["sft"].rank
    bases = [torch.linalg.svd(update).U[:, :rank] for update in updates]
    assert all(float((basis.T @ bases[-1]).square().sum() / rank) > 0.8 for basis in bases)
    low = [basis @ (basis.T @ update) for basis, update in zip(bases, updates, strict=True)]
    rests = [(update - part).flatten() for update, part in zip(updates, low, strict=True)]
    assert abs(float(rests[0] @ rests[1] / rests[0].norm() / rests[1].norm())) < 0.05
    assert torch.equal(next(synthetic.trajectory(w0, "rl", 0.1, 1, 3)), synthetic.updated(w0, "rl", 0.1, 3))


def test_a_trajectory_is_written_as_folders(tmp_path):
    shapes = [Shape(NAME, 16, 12), Shape(NAME.replace("q_proj", "k_proj"), 4, 12)]
    base, *steps = write_trajectory(tmp_path, shapes, "rl", 3)
    assert [path.name for path in (base, *steps)] == ["base", "step-1", "step-2", "step-3"]
    for seed, shape in enumerate(shapes):
        w0 = synthetic.weight("heavy", *shape.extents, seed)
        assert torch.equal(refs(base)[shape.name].read(), w0)
        expected = synthetic.trajectory(w0, "rl", synthetic.UPDATES["rl"].rel, 3, 1000 + seed)
        for path, w_t in zip(steps, expected, strict=True):
            assert torch.equal(refs(path)[shape.name].read(), w_t)


def test_a_matrix_and_its_transpose_are_one_shape():
    ten = [(shape.extents, count) for shape, count in counted(qwen_like())]
    assert sorted(ten) == [((1024, 2048), 3), ((2048, 2048), 3), ((6144, 2048), 4)]
    large = [(shape.extents, count) for shape, count in counted(qwen3_8b())]
    assert sorted(large) == [((1024, 4096), 72), ((4096, 4096), 72), ((12288, 4096), 108)]
