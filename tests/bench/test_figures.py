"""Every figure end to end at sizes where the numbers mean nothing and the plumbing everything."""

from dataclasses import replace

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from pipelines.lake import scan
from pipelines.store.objects import Store
from tests.bench import engine, measuring
from tests.bench.figures import asking, checkpoint, footprint, scaling, steps
from tests.bench.figures.accuracy import measure_accuracy
from tests.bench.figures.keeping import measure_storage
from tests.bench.figures.step import measure_step


def test_accuracy_compares_both_updates_with_float64(tiny):
    rows = measure_accuracy(tiny)
    assert {found.figure for found in rows} == {1}
    errors = [found for found in rows if "error" in found.quantity]
    assert len(errors) == 8 and all(found.met for found in errors), errors
    ratios = [found for found in rows if found.quantity.endswith("over ours")]
    assert [(found.case, found.goal) for found in ratios] == [
        ("rl", ">= 60"), ("rl", ">= 20"), ("sft", ">= 60"), ("sft", ">= 20"),
    ]  # fmt: skip
    assert all(found.value > 0 for found in ratios)


def test_keeping_compares_what_is_kept_with_plain_files(tiny, monkeypatch, tmp_path):
    monkeypatch.setenv("OPD_STORE", str(tmp_path))  # without trajectories: planted updates
    rows = measure_storage(tiny)
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


def test_asking_times_every_reader_on_the_same_rows(tiny):
    rows = {(found.case, found.quantity): found for found in asking.measure_scans(tiny)}
    assert {case for case, _ in rows} == {"lake.scan", "plain Polars", "DuckDB"}
    for reader in ("lake.scan", "plain Polars"):
        for quantity in ("one arm of all, wall", "one role of all arms, wall"):
            found = rows[reader, quantity]
            assert found.goal == "<= 5" and found.met is not False and "400 rows in 10 partitions" in found.note
        assert rows[reader, "one arm over all rows"].value > 0 and rows[reader, "all rows, wall"].value > 0


def test_without_duckdb_asking_says_so(tiny, monkeypatch):
    monkeypatch.setattr(asking, "readers", lambda store: {"DuckDB": None})
    rows = asking.measure_scans(tiny)
    assert len(rows) == 2 and all(found.value is None and "make setup" in found.note for found in rows)


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


def test_scaling_fits_exponents(tiny, monkeypatch):
    for part in ("_workers", "_locking"):
        monkeypatch.setattr(scaling, part, lambda sizes: [])
    snapshots, matrices = scaling.measure_scaling(tiny)
    assert (snapshots.case, matrices.case) == ("snapshots", "matrices")
    assert snapshots.note.count(" s") == 2 and snapshots.value is not None
    assert scaling.fit_exponent([1, 2, 4, 8], [3.0, 6.0, 12.0, 24.0]) == pytest.approx(1)
    assert scaling.fit_exponent([1, 2, 4], [1.0, 4.0, 16.0]) == pytest.approx(2)


def test_locking_is_measured_from_weights_and_from_kept_subspaces(tiny, monkeypatch):
    """Seconds that grow as count^1.5 from weights, as count^2 from what is kept, over the real calls."""
    calls = []

    def measure(store, paths, name, tables):
        calls.append((len(paths) - 1, name, tables))
        measuring.measure(store, paths, name, tables)
        again = sum(call[1] == name for call in calls) > 1
        return measuring.Cost((len(paths) - 1) ** (2.0 if again else 1.5), 0.0)

    monkeypatch.setattr(scaling, "measuring", Replaced(measure=measure, recipe=measuring.recipe))
    sizes = replace(tiny, steps=(2, 4, 8), repeats=3)
    whole, kept = scaling._locking(sizes)
    assert (whole.case, kept.case) == ("locking", "locking from kept subspaces")
    assert (whole.value, kept.value) == (pytest.approx(1.5), pytest.approx(2.0))
    assert whole.goal == kept.goal == "<= 1.05" and whole.met is kept.met is False
    assert "8: 64 s" in kept.note
    assert calls == [(count, f"steps-{count}", ("locking",)) for count in (2, 4, 8) for _ in range(4)]


def test_workers_measure_real_files_and_say_how_much_they_grew(tiny, monkeypatch):
    for part in ("_linear", "_locking"):
        monkeypatch.setattr(scaling, part, lambda sizes: [])
    one, two, gain = scaling.measure_scaling(tiny)
    assert gain.value == pytest.approx(one.value / two.value) and gain.goal == ">= 1.8"
    monkeypatch.setattr(engine, "DRIFT", engine.ROTATION)
    rows = footprint.measure_footprint(tiny)
    assert [found.case for found in rows] == ["one layer, rotation", "one layer, with exact NSS"]
    assert all(found.goal == "<= 6" and (found.value is None or found.value > 0) for found in rows)


def test_a_checkpoint_is_extrapolated_from_one_matrix_of_each_shape(tiny, monkeypatch):
    made = []
    monkeypatch.setattr(checkpoint, "cpu", lambda call, repeats=1: made.append(call()) or Spent(made[-1]))
    rows = checkpoint.measure_checkpoint(tiny)
    assert [found.case for found in rows] == [name for name in engine.SETS for _ in range(2)]
    assert all(found.value == len(tiny.model) for found in rows), "each counted once second, as often as it occurs"
    # Shapes: q and o alike, k and v, gate and up, down.
    assert len(made) == 4 * 2 * len(engine.SETS)


class Replaced:
    """A module of a few names."""

    def __init__(self, **names):
        vars(self).update(names)


class Spent:
    """A second, whatever was done."""

    def __init__(self, result):
        self.result, self.seconds, self.runs = result, 1.0, 1


def test_a_training_step_is_taken_apart(tiny):
    rows = {(found.case, found.quantity): found for found in measure_step(tiny)}
    assert {case for case, quantity in rows if quantity == "share of a step outside"} == {"opd", "rlvr", "sft-matched"}
    assert all(0 < found.value < 1 for key, found in rows.items() if key[1] == "share of a step outside")
    assert rows["opd", "snapshots over training"].value > 0
    assert rows["tiny", "sampler over generate"].goal == "<= 0.5"
    outside = [found for (_, quantity), found in rows.items() if quantity == "share of a step outside"]
    assert all("matrix products alone" in found.note for found in (rows["tiny", "sampler over generate"], *outside))


def test_without_trl_its_figure_says_so(tiny, monkeypatch, tmp_path):
    monkeypatch.setattr(steps.driver, "TRL", replace(steps.driver.TRL, folder=tmp_path / ".venv-trl"))
    (found,) = steps.measure_steps(tiny)
    assert (found.value, found.met) == (None, None)
    assert found.note == "not installed: .venv-trl is missing, a full bench makes it"
