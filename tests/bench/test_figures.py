"""Every figure end to end at sizes where the numbers mean nothing and the plumbing everything."""

from dataclasses import replace

import polars as pl
import pytest
import torch
from polars.testing import assert_frame_equal

from pipelines.lake import scan
from pipelines.store.objects import Store
from tests.bench import engine, measuring
from tests.bench.catalog import figures
from tests.bench.figures import asking, checkpoint, footprint, scaling, steps
from tests.bench.figures.accuracy import accuracy
from tests.bench.figures.keeping import keeping
from tests.bench.figures.step import step
from tests.bench.row import row
from tests.bench.workers import Race, race, worker


def test_accuracy_compares_both_updates_with_float64(tiny, told):
    tell, shares = told
    rows = accuracy(tiny, tell)
    assert {found.figure for found in rows} == {1} and shares == sorted(shares)
    errors = [found for found in rows if "error" in found.quantity]
    assert len(errors) == 8 and all(found.met for found in errors), errors
    ratios = [found for found in rows if found.quantity.endswith("over ours")]
    assert [(found.case, found.goal) for found in ratios] == [
        ("rl", ">= 60"), ("rl", ">= 20"), ("sft", ">= 60"), ("sft", ">= 20"),
    ]  # fmt: skip
    assert all(found.value > 0 for found in ratios)


def test_keeping_compares_what_is_kept_with_plain_files(tiny, told, monkeypatch, tmp_path):
    monkeypatch.setenv("OPD_STORE", str(tmp_path))  # without trajectories: planted updates
    rows = keeping(tiny, told[0])
    assert [(found.case, found.quantity, found.goal) for found in rows] == [
        ("lossless", "bytes over plain fp32", "<= 0.6"),
        ("updates in bf16", "bytes over plain fp32", "<= 0.36"),
        ("bf16 views", "bytes over plain bf16", "<= 0.15"),
        *((way, f"{what}plain over coded{how}", ">= 0.7") for way in ("exact", "bf16-update") for what, how in (
            ("commit, ", ""), ("read, ", ""), ("commit to disk, ", ", wall"), ("read from disk, ", ", wall"),
        )),
        ("one matrix", "whole over one", ""),
    ]  # fmt: skip
    assert all(found.value > 0 for found in rows) and all(found.met for found in rows[:3])


def test_asking_times_every_reader_on_the_same_rows(tiny, told):
    tell, shares = told
    rows = {(found.case, found.quantity): found for found in asking.asking(tiny, tell)}
    assert shares == sorted(shares)
    assert {case for case, _ in rows} == {"lake.scan", "plain Polars", "DuckDB"}
    for reader in ("lake.scan", "plain Polars"):
        for quantity in ("one arm of all, wall", "one role of all arms, wall"):
            found = rows[reader, quantity]
            assert found.goal == "<= 5" and found.met is not False and "400 rows in 10 partitions" in found.note
        assert rows[reader, "one arm over all rows"].value > 0 and rows[reader, "all rows, wall"].value > 0


def test_without_duckdb_asking_says_so(tiny, told, monkeypatch):
    monkeypatch.setattr(asking, "readers", lambda store: {"DuckDB": None})
    rows = asking.asking(tiny, told[0])
    assert len(rows) == 2 and all(found.value is None and "make setup" in found.note for found in rows)


@pytest.mark.parametrize(("others", "met"), [(0.0, False), (1.5, None), (None, None)])
def test_a_slow_answer_on_a_busy_machine_is_undecided(others, met, tiny, told, monkeypatch):
    monkeypatch.setattr(asking, "readers", lambda store: {"slow": lambda having: None})
    monkeypatch.setattr(asking, "_seconds", lambda call, repeats: (9.0, 1.0))
    monkeypatch.setattr(asking.Load, "others", lambda load, ours: others)
    one, ratio, role, whole = asking.asking(tiny, told[0])
    assert one.met is role.met is met and ("undecided" in one.note) == (met is None)
    assert (one.value, ratio.value, whole.value) == (9.0, 1.0, 9.0)


@pytest.mark.parametrize("having", [{"recipe": asking.ARM}, {"role": "q"}, {}], ids=["arm", "role", "all"])
def test_what_is_asked_has_one_answer(having, tiny, tmp_path):
    store = Store(f"file://{tmp_path}")
    nbytes = asking.fill(store, tiny)
    found = scan("locking", store.uri).collect()
    assert found.height == tiny.partitions * tiny.rows and nbytes == sum(map(store.size, store.find("lake")))
    assert found.select("recipe", "seed").n_unique() == tiny.partitions
    expected = found.filter(view="master", side="input", k=16, **having).group_by("step").agg(pl.mean("similarity"))
    for ask in filter(None, asking.readers(store).values()):
        assert_frame_equal(ask(having), expected, check_row_order=False, abs_tol=1e-12)
    assert expected.height > 1


def test_scaling_fits_exponents(tiny, told, monkeypatch):
    for part in ("_workers", "_locking"):
        monkeypatch.setattr(scaling, part, lambda sizes, tell: [])
    snapshots, matrices = scaling.scaling(tiny, told[0])
    assert (snapshots.case, matrices.case) == ("snapshots", "matrices")
    assert snapshots.note.count(" s") == 2 and snapshots.value is not None
    assert scaling.exponent([1, 2, 4, 8], [3.0, 6.0, 12.0, 24.0]) == pytest.approx(1)
    assert scaling.exponent([1, 2, 4], [1.0, 4.0, 16.0]) == pytest.approx(2)


def test_locking_is_measured_from_weights_and_from_kept_subspaces(tiny, told, monkeypatch):
    """Seconds that grow as count^1.5 from weights, as count^2 from what is kept, over the real calls."""
    calls = []

    def measure(store, paths, name, tables):
        calls.append((len(paths) - 1, name, tables))
        measuring.measure(store, paths, name, tables)
        again = sum(call[1] == name for call in calls) > 1
        return measuring.Cost((len(paths) - 1) ** (2.0 if again else 1.5), 0.0)

    monkeypatch.setattr(scaling, "measuring", Replaced(measure=measure, recipe=measuring.recipe))
    sizes = replace(tiny, steps=(2, 4, 8), repeats=3)
    whole, kept = scaling._locking(sizes, told[0])
    assert (whole.case, kept.case) == ("locking", "locking from kept subspaces")
    assert (whole.value, kept.value) == (pytest.approx(1.5), pytest.approx(2.0))
    assert whole.goal == kept.goal == "<= 1.05" and whole.met is kept.met is False
    assert "8: 64 s" in kept.note and kept.note.endswith("between the last two 2.00")
    assert calls == [(count, f"steps-{count}", ("locking",)) for count in (2, 4, 8) for _ in range(4)]


@pytest.mark.parametrize(
    ("two", "others", "met"), [(5.0, 0.0, True), (9.0, 0.0, False), (9.0, 0.5, None), (9.0, None, None)]
)
def test_a_gain_missed_on_a_busy_machine_is_undecided(tiny, told, monkeypatch, two, others, met):
    for part in ("_linear", "_locking"):
        monkeypatch.setattr(scaling, part, lambda sizes, tell: [])
    order = []

    def run(count, names, *_):
        order.append((count, names))
        return Race(wall=10.0 if count == 1 else two, cpu=10.0, others=others)

    monkeypatch.setattr(scaling, "race", run)
    *_, gain = scaling.scaling(tiny, told[0])
    assert gain.value == pytest.approx(10 / two) and gain.met is met
    assert ("undecided" in gain.note) == (met is None)
    assert [count for count, _ in order] == [1, 2]
    sizes = {shape.name: shape.numel for shape in tiny.ten}
    assert [sizes[name] for name in order[0][1]] == sorted(sizes.values(), reverse=True)


def test_workers_measure_real_files_and_say_how_much_they_grew(tiny, told, monkeypatch):
    """Footprint and race over one real worker each; the others of footprint are that one again."""
    seen = []

    def once(folders, k, parts):
        names = [shape.name for shape in tiny.model if ".layers.0." in shape.name]
        if not seen:
            seen.append(race(1, names, folders, k, parts))
        return worker(folders, k, parts)

    monkeypatch.setattr(footprint, "worker", once)
    monkeypatch.setattr(engine, "DRIFT", engine.ROTATION)
    rows = footprint.footprint(tiny, told[0])
    assert [found.case for found in rows] == [
        "one layer, rotation", "one layer, with exact NSS", "embedding of 400 rows",
    ]  # fmt: skip
    assert all(found.goal == "<= 6" and (found.value is None or found.value > 0) for found in rows)
    assert seen[0].wall > 0 and seen[0].cpu > 0


def test_a_worker_that_dies_is_an_error(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(RuntimeError, match="exit code 1"), worker((tmp_path / "empty",) * 2, 4, ()) as mine:
        mine.measure("model.layers.0.self_attn.q_proj.weight")


def test_a_checkpoint_is_extrapolated_from_one_matrix_of_each_shape(tiny, told, monkeypatch):
    made = []
    monkeypatch.setattr(checkpoint, "cpu", lambda call, repeats=1: made.append(call()) or Spent(made[-1]))
    monkeypatch.setattr(checkpoint, "_default", lambda sizes, tell: [])
    rows = checkpoint.checkpoint(tiny, told[0])
    assert [found.case for found in rows] == [name for name in engine.SETS for _ in range(2)]
    assert all(found.value == len(tiny.model) for found in rows), "each counted once second, as often as it occurs"
    # Shapes: q and o alike, k and v, gate and up, down.
    assert len(made) == 4 * 2 * len(engine.SETS)


def test_on_a_gpu_every_matrix_is_measured(tiny, told, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "GPU")
    spent = {name: (2.0, 1.0) for name in engine.SETS}
    monkeypatch.setattr(checkpoint, "_measure_on_device", lambda shape, seed, k: spent)
    monkeypatch.setattr(checkpoint, "_default", lambda sizes, tell: [])
    rows = checkpoint.checkpoint(tiny, told[0])
    assert [found.value for found in rows] == [28.0, 14.0] * len(engine.SETS)
    assert rows[0].quantity == "GPU, once per base" and "device events" in rows[0].note


@pytest.mark.parametrize("full", [3, 1])
def test_the_default_of_a_checkpoint_is_extended_in_a_straight_line(full, tiny, told, monkeypatch):
    """Base 7; all tables 5 + 6 t, those of every step 3 + 2 t: of each of 14 matrices 7 + 5 + 6 n + 2 (3 - n)."""

    def measure(store, paths, name, tables=measuring.DEFAULT.tables):
        count, every = len(paths) - 1, tables == ("rotation",)
        assert every or tables == measuring.DEFAULT.tables
        base = 7.0 if name == "all-2" else 0.0
        return measuring.Cost(base + (3 + 2 * count if every else 5 + 6 * count), base)

    monkeypatch.setattr(checkpoint, "measuring", Replaced(measure=measure))
    monkeypatch.setattr(checkpoint, "_steps", lambda folder, sizes: (full, ("rotation",)))
    monkeypatch.setattr(checkpoint, "others", lambda paths, sizes, absent, say: [("published recipe", 60.0)])
    rows = {(found.case, found.quantity): found for found in checkpoint._default(tiny, told[0])}
    per_checkpoint = 14 * (5 + 6 * full + 2 * (3 - full)) / 3
    once = rows["default", "CPU once per base"]
    assert once.value == 14 * 7 and once.note.endswith(f"extended to 3, {full} of them with all tables")
    assert rows["default", "CPU per checkpoint, base apart"].value == pytest.approx(per_checkpoint)
    assert rows["default", "CPU per checkpoint, base included"].value == pytest.approx(per_checkpoint + 14 * 7 / 3)
    assert rows["published recipe", "CPU per snapshot"].value == 14 * 60
    assert rows["published recipe", "over ours, base apart"].value == pytest.approx(14 * 60 / per_checkpoint)
    assert all(found.goal == "" for found in rows.values())


def test_steps_with_all_tables_are_counted(tiny, tmp_path, monkeypatch):
    full, every = checkpoint._steps(tmp_path / "real", replace(tiny, snapshots=6))
    assert 1 <= full <= 6 and {"update_support", "rotation", "locking"} <= set(every)
    counts = dict.fromkeys(measuring.DEFAULT.tables, 6) | {"locking": 5, "nulls": 4, "hill": 4}
    names = {"measure": lambda *_: None, "steps": lambda *_: counts}
    monkeypatch.setattr(checkpoint, "measuring", Replaced(**names))
    full, every = checkpoint._steps(tmp_path / "planted", replace(tiny, snapshots=6))
    assert full == 4 and set(every) == set(measuring.DEFAULT.tables) - {"nulls", "hill"}


def test_figures_are_numbered_and_known():
    assert list(figures()) == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]
    assert all(figure.title and figure.work > 0 for figure in figures().values())
    assert row(1, "", "", 1.0).figure == 1


class Replaced:
    """A module of a few names."""

    def __init__(self, **names):
        vars(self).update(names)


class Spent:
    """A second, whatever was done."""

    def __init__(self, result):
        self.result, self.seconds, self.runs = result, 1.0, 1


def test_a_training_step_is_taken_apart(tiny, told):
    tell, shares = told
    rows = {(found.case, found.quantity): found for found in step(tiny, tell)}
    assert shares == sorted(shares)
    assert {case for case, quantity in rows if quantity == "share of a step outside"} == {"opd", "rlvr", "sft-matched"}
    assert all(0 < found.value < 1 for key, found in rows.items() if key[1] == "share of a step outside")
    assert rows["opd", "snapshots over training"].value > 0
    assert rows["tiny", "sampler over generate"].goal == "<= 0.5"
    outside = [found for (_, quantity), found in rows.items() if quantity == "share of a step outside"]
    assert all("matrix products alone" in found.note for found in (rows["tiny", "sampler over generate"], *outside))


def test_without_trl_its_figure_says_so(tiny, told, monkeypatch, tmp_path):
    monkeypatch.setattr(steps.driver, "TRL", replace(steps.driver.TRL, folder=tmp_path / ".venv-trl"))
    (found,) = steps.steps(tiny, told[0])
    assert (found.value, found.met) == (None, None)
    assert found.note == "not installed: .venv-trl is missing, a full bench makes it"
