"""Estimates against counts by hand, and what an import will cost against what it did."""

from dataclasses import replace

import pytest
import torch

from opd_ops.geometry import base, tridiagonal
from pipelines.runs.external import imports
from pipelines.runs.external.imports import measure_import, plan_import
from pipelines.runs.external.outline import outline_import
from pipelines.runs.geometry import estimates, measuring
from pipelines.runs.geometry.estimates import base_bytes, peak_bytes, per_base, per_snapshot
from pipelines.store.bases import count_cache_bytes
from pipelines.store.objects import Store
from pipelines.studies.study import TABLES
from tests.pipelines.runs.conftest import CUTS, EMBED, Folders, M, N, Q, everything, model, run, same, save

BIG, SMALL = (2048, 8192), (1024, 1024)


def test_the_ratio_of_two_shapes_is_that_of_their_operations():
    drr = lambda m, n, k, q: 6 * m * n * (2 * q + 8 * (k + 8)) + 60 * m * n
    for k, q in ((16, 96), (64, 128)):
        big, small = (per_snapshot(shape, "BF16", ("rotation",), (k,), projection=True) for shape in (BIG, SMALL))
        assert big / small == pytest.approx(drr(2048, 8192, k, q) / drr(1024, 1024, k, q))
    gram = lambda m, n: m * m * n + 3 * 4 / 3 * m**3
    for table, factor in (("update_spectrum", 1), ("spectral_drift", 2)):
        big, small = (per_snapshot(shape, "BF16", (table,), (16,), projection=True) for shape in (BIG, SMALL))
        assert big == pytest.approx(factor * gram(2048, 8192) + 60 * 2048 * 8192)
        assert small == pytest.approx(factor * gram(1024, 1024) + 60 * 1024 * 1024)


def test_what_is_shared_counts_once_and_each_view_apart():
    each = lambda *tables, dtype="BF16": per_snapshot(BIG, dtype, tables, (16,), projection=True)
    assert each("update_spectrum", "hill") == each("hill") == each("update_norm", "hill")
    assert each("rotation", "singular_shift") == each("rotation")
    assert each("hill", dtype="F32") == 2 * each("hill")
    assert each() == 0.0
    assert per_snapshot((50_000, 8), "BF16", ("update_support",), (16,), projection=False) == 30 * 400_000


def test_small_and_float64_matrices_are_dense():
    factors = 10 * 512 * 512 * 4096 + 30 * 512**3
    shape = (4096, 512)
    assert per_snapshot(shape, "BF16", ("rotation", "hill"), (16,), projection=True) == 2 * factors + 60 * 4096 * 512
    assert per_base(shape, "BF16", ("rotation",), (16,)) == factors
    assert (base_bytes(shape, "BF16", (16,)), base_bytes((513, 600), "F64", (16,))) == (0, 0)
    assert peak_bytes((513, 600), "F64", 1, TABLES, (16,)) > peak_bytes((513, 600), "BF16", 1, ("hill",), (16,))


def test_base_factors_are_as_large_as_the_engine_makes_them():
    assert (estimates.EXACT, estimates.EXTRA) == (base.EXACT, base.EXTRA)
    assert estimates.TRIDIAGONAL == tridiagonal.SIDE
    for k in ((), (4,), (64,), (16, 200)):
        assert estimates.width(k) == base.factor_width(k)
        for m in (512, 513, 600, 1300):
            assert estimates.dense((m, 2000), "BF16", k) != base.is_certifiable((m, 2000), k)
    for shape in ((600, 700), (800, 700)):
        made = base.factorise_base(torch.randn(shape), base.factor_width((64,))).tensors()
        size = sum(tensor.numel() * tensor.element_size() for name, tensor in made.items() if name != "facts")
        assert base_bytes(shape, "BF16", (64,)) == size


@pytest.fixture
def large(tmp_path) -> Folders:
    """A base and a snapshot with one projection large enough for base factors, in bf16."""
    generator = torch.Generator().manual_seed(5)
    decay = torch.logspace(1, -1, 520)[:, None]
    start = (torch.randn(520, 530, generator=generator) * decay).bfloat16()
    moved = (start * (1 + 0.01 * torch.randn(520, 530, generator=generator))).bfloat16()
    tensors = {name: {f"{Q}.weight": w, "model.norm.weight": torch.ones(3)} for name, w in (("b", start), ("s", moved))}
    return save(tmp_path / "b", tensors["b"]), [(1, save(tmp_path / "s", tensors["s"]))]


def test_an_outline_says_what_is_left(folders, store):
    given = [(1, folders["one"]), (2, folders["two"])]
    found = outline_import(plan_import(store, folders["base"], given, CUTS, "x"), 50.0)
    assert (found.measured, found.waiting) == ((), (1, 2))
    assert list(found.by_role) == ["embed", "k", "o", "q", "v", "norm"]
    assert (found.total.matrices, found.total.base) == (6, 0)
    projection, embedding = 8 * M * N, 8 * 10 * N
    # W0 and both snapshots; for nulls all three again.
    assert (found.by_role["q"].read, found.by_role["embed"].read) == (6 * projection, 3 * embedding)
    assert found.total.seconds > 0 and found.peak > estimates.PROCESS
    run(store, folders["base"], given[:1])
    both = plan_import(store, folders["base"], given, CUTS, "x")
    found = outline_import(both, 50.0)
    assert (found.measured, found.waiting) == ((), (1, 2)), "nulls of step 1 compare with another final step"
    no_nulls = replace(CUTS, tables=tuple(table for table in TABLES if table != "nulls"))
    later = outline_import(plan_import(store, folders["base"], given, no_nulls, "x"), 50.0)
    assert (later.measured, later.waiting) == ((1,), (2,))
    assert later.by_role["q"].read == 2 * projection
    assert later.total.seconds < found.total.seconds


def test_base_factors_that_are_kept_are_not_counted_again(large: Folders, store):
    before = outline_import(plan_import(store, *large, CUTS, "x"), 50.0).total
    guard = 2 * 520 * min(520 // base.GUARD, 520 - 96)
    assert before.base == 8 * 96 * 1050 + 8 * 520 + guard + 520 * 530 and before.base_kept == 0
    run(store, *large)
    assert before.base <= count_cache_bytes(store) <= before.base + 2000  # and headers
    after = outline_import(plan_import(store, *large, CUTS, "another"), 50.0).total
    assert after.base_kept == after.base == before.base
    assert after.seconds < before.seconds


def test_an_embedding_read_in_blocks_is_read_against_its_base_each_time(folders, store, monkeypatch):
    given = [(1, folders["one"]), (2, folders["two"])]
    monkeypatch.setattr("pipelines.runs.geometry.tasks.BLOCK", 100)
    found = outline_import(plan_import(store, folders["base"], given, CUTS, "x"), 50.0)
    assert found.by_role["embed"].read == 4 * 8 * model()[f"{EMBED}.weight"].numel()


def test_large_matrices_on_ray_with_kept_bases_give_the_serial_rows(large: Folders, tmp_path, store, workers):
    alone = Store(f"file://{tmp_path}/alone")
    run(alone, *large)
    timing = measuring.lake.read_partition(alone, "timing", recipe="external.x", seed=0)
    assert timing is not None
    seconds = {row["phase"]: row["cpu_s"] for row in timing.to_dicts()}
    assert 0 < seconds["base"] < seconds["measure"]
    for _ in range(2):  # the second time with the base factors that the first kept
        measure_import(plan_import(store, *large, CUTS, "x"))
        assert same(everything(store), everything(alone))
        assert store.list("bases")
        for made in ("lake", "runs"):
            store.remove(made)
    assert imports.plan_import(store, *large, CUTS, "x").work
