import weakref
from types import SimpleNamespace

import pytest
import torch

from opd_ops.geometry import VERSION, suite
from opd_ops.geometry.suite import TABLES, Settings, measure_matrix

SMALL = Settings(k=(4,), hill_k=(4,), locking_k=(2,))


def run(base, snapshots, settings=SMALL, projection=True):
    return measure_matrix(base, snapshots, settings=settings, projection=projection)


def test_every_table_has_its_rows_for_every_step_and_view(trajectory):
    base, snapshots = trajectory(24, 40, 3)
    found = run(base, snapshots)
    assert found.problems == []
    assert tuple(found.rows) == TABLES
    # A (step, view): 1 support, 2 sides, 1 shift, 1 drift, 2 masks x 2 alphas, 1 norm, 1 spectrum, 2 Hill cuts (2 and
    # 4); nulls: two in the bf16 view, one in the master view.
    counts = {table: len(rows) for table, rows in found.rows.items()}
    assert counts == {
        "update_support": 6, "rotation": 12, "singular_shift": 6, "spectral_drift": 6, "localization": 24,
        "update_norm": 6, "update_spectrum": 6, "hill": 12, "locking": 2 * 2 * 3, "nulls": 9,
    }  # fmt: skip
    for table, rows in found.rows.items():
        assert {row["view"] for row in rows} == {"bf16", "master"}
        assert {row["dtype"] for row in rows} == {"fp32"}
        assert {row["method"] for row in rows} == {
            f"{'equality' if table == 'update_support' else 'svd-f64'}/{VERSION}"
        }
        assert len({tuple(row) for row in rows}) == 1, "rows of a table share their columns"
    assert {row["scope"] for row in found.rows["update_support"]} == {"projection"}


def test_large_matrices_name_the_gram_route(trajectory):
    base, snapshots = trajectory(258, 260, 1)
    assert {row["method"] for row in run(base, snapshots).rows["hill"]} == {f"gram-f64/{VERSION}"}


@pytest.mark.parametrize("shape", [(24, 40), (258, 260)])
def test_results_repeat_bit_for_bit(shape, trajectory):
    base, snapshots = trajectory(*shape, 2)
    assert run(base, snapshots).rows == run(base.clone(), [(t, w.clone()) for t, w in snapshots]).rows


def test_rows_of_a_snapshot_do_not_depend_on_its_neighbours(trajectory):
    base, snapshots = trajectory(24, 40, 3)
    together, alone = run(base, snapshots).rows, run(base, snapshots[1:2]).rows
    for table in set(TABLES) - {"locking", "nulls"}:
        assert [row for row in together[table] if row["step"] == 2] == alone[table]


def test_a_trajectory_that_never_moves_is_zero_everywhere(trajectory):
    base, _ = trajectory(24, 40, 1)
    found = run(base, [(1, base.clone()), (2, base.clone())])
    rows = found.rows
    assert found.problems == []
    assert {row["unchanged"] for row in rows["update_support"]} == {1.0}
    assert {row["max_deg"] for row in rows["rotation"]} == {0.0}
    assert {row["nss"] for row in rows["spectral_drift"]} == {0.0}
    assert {row["frobenius"] for row in rows["update_norm"]} == {0.0}
    for table, column in (("hill", "hill"), ("locking", "similarity"), ("localization", "overlap")):
        assert {row[column] for row in rows[table]} == {None}
        assert all(row["reason"] for row in rows[table])


def test_a_null_always_has_a_reason_and_a_reason_a_null(trajectory):
    base, snapshots = trajectory(6, 40, 2)
    found = run(base, [*snapshots, (3, base)], Settings())
    for table, rows in found.rows.items():
        # A null without such a subspace, here or at the final step, has the rest of its row all the same.
        optional = {"rank", "reason", *(("similarity_output", "similarity_input") if table == "nulls" else ())}
        for row in rows:
            missing = [column for column, value in row.items() if value is None and column not in optional]
            assert bool(missing) == bool(row.get("reason")), row


@pytest.mark.parametrize("shape", [(7,), (5, 6), (2, 3, 4)])
def test_other_weights_give_support_alone(shape):
    base = torch.ones(shape)
    moved = base.clone()
    moved.view(-1)[0] = 2.0
    found = run(base, [(5, moved)], projection=False)
    assert {table for table, rows in found.rows.items() if rows} == {"update_support"}
    for row in found.rows["update_support"]:
        assert (row["scope"], row["numel"]) == ("other", base.numel())
        assert row["unchanged"] == (base.numel() - 1) / base.numel()


def test_bf16_storage_has_no_master_view(trajectory):
    base, snapshots = trajectory(24, 40, 2)
    found = run(base.bfloat16(), [(t, w.bfloat16()) for t, w in snapshots])
    assert {row["view"] for rows in found.rows.values() for row in rows} == {"bf16"}
    assert {row["dtype"] for row in found.rows["rotation"]} == {"bf16"}


def test_the_bf16_view_of_fp32_equals_storing_bf16(trajectory):
    base, snapshots = trajectory(24, 40, 2)
    wide, narrow = run(base, snapshots).rows, run(base.bfloat16(), [(t, w.bfloat16()) for t, w in snapshots]).rows
    drop = lambda row: {column: value for column, value in row.items() if column != "dtype"}
    for table in TABLES:
        # The fixed direction is that of the widest view, so it differs where a wider one is stored.
        same = lambda row: row["view"] == "bf16" and row.get("null") != "fixed_direction"
        assert [drop(row) for row in wide[table] if same(row)] == [drop(row) for row in narrow[table] if same(row)]


def test_bf16_start_and_fp32_snapshots_mix(trajectory):
    base, snapshots = trajectory(24, 40, 2)
    assert run(base.bfloat16(), snapshots).rows == run(base, snapshots).rows


def test_the_start_is_factored_once_unless_its_views_differ(trajectory, monkeypatch):
    calls = []
    factor = suite.factorise
    monkeypatch.setattr(suite, "factorise", lambda a, vectors: calls.append(a) or factor(a, vectors))
    base, snapshots = trajectory(24, 40, 3)
    run(base, snapshots)
    assert len(calls) == 1 + 2 * 3
    calls.clear()
    run(base + 1e-6, snapshots)
    assert len(calls) == 2 + 2 * 3


def test_snapshots_are_read_one_at_a_time_and_released(trajectory):
    base, snapshots = trajectory(24, 40, 4)
    handed_out = []

    def read():
        for step, weight in snapshots:
            fresh = weight.clone()
            handed_out.append(weakref.ref(fresh))
            # Only the previous one may still be bound, to the loop's own variable.
            assert sum(held() is not None for held in handed_out[:-1]) <= 1
            yield step, fresh
            del fresh

    run(base, read())
    assert len(handed_out) == 4
    assert not any(held() is not None for held in handed_out)


def test_step_zero_has_no_rows(trajectory):
    base, snapshots = trajectory(24, 40, 2)
    assert run(base, [(0, base), *snapshots]).rows == run(base, snapshots).rows


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_broken_snapshot_is_a_problem_and_the_others_are_measured(bad, trajectory):
    base, snapshots = trajectory(24, 40, 3)
    snapshots[1][1][0, :3] = bad
    found = run(base, snapshots)
    assert found.problems == ["step 2: 3 non-finite weights"]
    assert [row["step"] for row in found.rows["update_support"]] == [1, 1, 2, 2, 3, 3]
    for table in set(TABLES) - {"update_support"}:
        assert {row["step"] for row in found.rows[table]} >= {1, 2}
        for row in found.rows[table]:
            touched = 2 in (row["step"], row.get("step_other"))
            assert (row["reason"] or "").startswith("W_t has 3 non-finite weights") == touched


def test_a_broken_last_snapshot_leaves_nothing_that_compares_with_it(trajectory):
    base, snapshots = trajectory(24, 40, 2)
    snapshots[1][1][0, 0] = float("nan")
    for row in run(base, snapshots).rows["nulls"]:
        reason = "W_t has 1 non-finite weights" if row["step"] == 2 else "W_2 has 1 non-finite weights"
        assert row["reason"] == (None if (row["step"], row["null"]) == (1, "shuffled") else reason)
        assert row["similarity_input"] is None


def test_a_broken_start_is_a_problem_and_every_row_says_so(trajectory):
    base, snapshots = trajectory(24, 40, 2)
    base[0, 0] = float("nan")
    for projection in (True, False):
        found = run(base, snapshots, projection=projection)
        assert found.problems == ["base: 1 non-finite weights"]
        assert len(found.rows["update_support"]) == 4  # NaN counts as changed
        for table in set(TABLES) - {"update_support"}:
            assert bool(found.rows[table]) == projection
            assert all(row["reason"].startswith("W0 has 1 non-finite weights") for row in found.rows[table])


def test_mistakes_are_named(trajectory):
    base, snapshots = trajectory(24, 40, 2)
    with pytest.raises(ValueError, match=r"\(40, 24\), W0 has \(24, 40\)"):
        run(base, [(1, base.T)])
    with pytest.raises(ValueError, match="step 1 came after step 2"):
        run(base, snapshots[::-1])
    with pytest.raises(ValueError, match="step 2 came after step 2"):
        run(base, [snapshots[1], snapshots[1]])
    with pytest.raises(ValueError, match=r"shape \(7,\)"):
        run(torch.ones(7), [])
    with pytest.raises(ValueError, match=r"shape \(0,\)"):
        run(torch.ones(0), [], projection=False)
    with pytest.raises(ValueError, match="int64"):
        run(torch.ones(3, 3).long(), [])


@pytest.mark.parametrize(
    "wrong", [{"k": (0,)}, {"k": (4, 4)}, {"hill_k": (1,)}, {"alpha": (1.0,)}, {"alpha": (0.3, 0.3)}]
)
def test_settings_refuse_what_has_no_meaning(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Settings(**wrong)


def test_empty_settings_measure_what_needs_none(trajectory):
    base, snapshots = trajectory(24, 40, 2)
    rows = run(base, snapshots, Settings(k=(), alpha=(), hill_k=(), locking_k=())).rows
    assert not rows["rotation"] + rows["localization"] + rows["locking"]
    assert rows["spectral_drift"] == run(base, snapshots).rows["spectral_drift"]


def test_weights_whose_squares_leave_float64_are_measured():
    tiny = torch.full((4, 4), 1e-200, dtype=torch.float64)
    rows = run(tiny, [(1, 2 * tiny)]).rows
    norm = next(row for row in rows["update_norm"] if row["view"] == "master")
    assert norm["stable_rank"] == pytest.approx(1.0) and norm["relative_norm"] == pytest.approx(1.0)
    assert norm["frobenius"] == pytest.approx(4e-200)


@pytest.mark.parametrize("where", ["subspace_rows", "localization"])
def test_what_is_raised_for_a_matrix_is_the_reason_of_its_rows(where, monkeypatch):
    def fail(*_, **__):
        raise ZeroDivisionError("float division by zero")

    monkeypatch.setattr(suite, where, SimpleNamespace(**vars(getattr(suite, where)) | FAILING[where](fail)))
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(20, 30, generator=generator)
    found = run(base, [(1, base + 1e-3), (2, base + 2e-3)])
    why = "not computable (ZeroDivisionError: float division by zero)"
    assert found.problems[:2] == [f"step 1: {why}", f"step 2: {why}"]
    for table in ("rotation", "singular_shift", "spectral_drift", "update_norm", "update_spectrum", "hill"):
        assert {row["reason"] for row in found.rows[table]} == {why}
    assert {row["reason"] for row in found.rows["locking"]} == {f"{why} (step 1)"}
    assert {row["unchanged"] for row in found.rows["update_support"] if row["view"] == "master"} == {0.0}


FAILING = {"subspace_rows": lambda fail: {"rows_from_factors": fail}, "localization": lambda fail: {"rows": fail}}


def test_what_f32_cannot_compute_is_computed_in_float64(monkeypatch):
    """The certified route fails, and every row is that of float64 factors; rotation says why."""

    def fail(*_, **__):
        raise torch.linalg.LinAlgError("linalg.svd: did not converge\nmore")

    monkeypatch.setattr(suite.subspace_rows, "rows_from_bases", fail)
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(520, 530, generator=generator)
    found = run(base, [(1, base + 1e-3 * torch.randn(520, 530, generator=generator))])
    assert found.problems == []
    said = "not computable (LinAlgError: linalg.svd: did not converge): dense float64 factors"
    assert {(row["method"], row["fallback"]) for row in found.rows["rotation"]} == {(f"gram-f64/{VERSION}", said)}
    assert all(row["max_deg"] > 0 for row in found.rows["rotation"])


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(28, "No space left on device"),
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_what_is_the_machines_is_raised(error, monkeypatch):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(suite.subspace_rows, "rows_from_factors", fail)
    with pytest.raises(type(error)):
        run(torch.eye(4), [(1, 2 * torch.eye(4))])


def test_a_float64_snapshot_of_a_bf16_start_is_not_rounded_to_f32():
    """W0 in bf16 is stored so; an update of 1e-12 of it is below f32 and must be seen all the same."""
    base = torch.full((520, 530), 0.5, dtype=torch.float64)
    rows = run(base, [(1, base + 1e-12)]).rows
    norm = next(row for row in rows["update_norm"] if row["view"] == "master")
    assert norm["frobenius"] == pytest.approx(1e-12 * (520 * 530) ** 0.5, rel=1e-3)
    assert next(row for row in rows["nulls"] if row["view"] == "master")["reason"] is None


def test_a_weight_beyond_bf16_is_measured_in_the_view_that_holds_it():
    largest = torch.finfo(torch.float32).max
    base = torch.eye(6)
    base[0, 0] = largest
    moved = base + torch.diag(torch.tensor([0.0, 1, 0, 0, 0, 0]))
    found = run(base, [(1, moved)], settings=Settings(k=(1,), hill_k=(4,), locking_k=(1,)))
    assert found.problems[0] == "base: 1 weights beyond the largest bf16"
    for row in found.rows["rotation"]:
        assert row["reason"] == (None if row["view"] == "master" else "W0 has 1 weights beyond the largest bf16")
    assert next(row for row in found.rows["update_norm"] if row["view"] == "master")["frobenius"] == pytest.approx(1.0)
