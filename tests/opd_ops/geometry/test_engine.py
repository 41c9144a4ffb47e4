"""The whole engine on matrices of the size it is chosen for, against the dense float64 reference, on every device."""

import math

import pytest
import torch

from opd_ops.geometry.suite import TABLES, Matrix, Settings, locking_rows, measure_matrix

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]
CUTS = Settings(k=(16, 64), hill_k=(16, 64), locking_k=(8,))
EXACT = Settings(k=(16, 64), hill_k=(16, 64), locking_k=(8,), dense=True)


@pytest.fixture(scope="module", params=[(600, 900), (900, 600)])
def trajectory(request, weight, updated):
    """bf16-representable W0 and three fp32 snapshots: a small rl-like step, an sft-like one, and a large one."""
    exact, u, _, v = weight("heavy", *request.param, 64, 5)
    w0 = exact.bfloat16().float()
    steps = (("rl", 3e-4), ("sft", 3e-3), ("sft", 2e-2))
    return w0, [(t + 1, updated(w0.double(), u, v, kind, 64, size, t)) for t, (kind, size) in enumerate(steps)]


@pytest.fixture(scope="module")
def reference(trajectory):
    base, snapshots = trajectory
    return measure_matrix(base, snapshots, settings=EXACT, projection=True).rows


@pytest.fixture(scope="module", params=DEVICES)
def found(request, trajectory):
    base, snapshots = trajectory
    return measure_matrix(base, snapshots, settings=CUTS, projection=True, device=request.param).rows


def together(found, reference, table):
    """Pairs of rows with equal keys; every row of one has its twin in the other."""
    keys = ("step", "step_other", "view", "side", "k", "mask", "alpha", "null")
    index = lambda rows: {tuple(row.get(key) for key in keys): row for row in rows[table]}
    here, true = index(found), index(reference)
    assert here.keys() == true.keys()
    return [(here[key], true[key]) for key in here]


def test_rotation_is_within_its_bounds_of_float64(found, reference):
    for here, true in together(found, reference, "rotation"):
        assert here["method"].startswith("drr-f32")
        assert here["error_deg"] < 0.25 * true["max_deg"]
        for column in ("max_deg", "mean_deg", "rms_deg"):
            assert abs(here[column] - true[column]) <= here["error_deg"] + true["error_deg"]
            assert here[column] == pytest.approx(true[column], rel=1e-3)
        worst = max(abs(a - b) for a, b in zip(here["angles_deg"], true["angles_deg"], strict=True))
        assert worst <= here["angle_error_deg"] + true["angle_error_deg"]
        assert here["gap"] == pytest.approx(true["gap"], rel=1e-6)


def test_shifts_and_drift_are_within_their_bounds_of_float64(found, reference):
    for here, true in together(found, reference, "singular_shift"):
        worst = max(abs(a - b) for a, b in zip(here["shifts"], true["shifts"], strict=True))
        assert worst <= here["error"] + true["error"]
        assert here["nss_k"] == pytest.approx(true["nss_k"], rel=1e-4)
    for here, true in together(found, reference, "spectral_drift"):
        assert abs(here["nss"] - true["nss"]) <= here["error"] + true["error"]
        assert here["mirsky"] == pytest.approx(true["mirsky"], rel=1e-9)


def test_norms_ranks_and_hill_are_within_their_bounds_of_float64(found, reference):
    for here, true in together(found, reference, "update_norm"):
        assert here["frobenius"] == pytest.approx(true["frobenius"], rel=1e-7)
        assert here["rounding_norm"] == pytest.approx(true["rounding_norm"], rel=1e-9)
        assert abs(here["stable_rank"] - true["stable_rank"]) <= here["stable_rank_error"] + true["stable_rank_error"]
    for here, true in together(found, reference, "update_spectrum"):
        for column in ("effective_rank", "effective_rank_energy", "energy_top16"):
            # f32 differences of f32 masters are exact but for the last bit of far-moved weights.
            assert abs(here[column] - true[column]) <= here[f"{column}_error"] + true[f"{column}_error"]
            assert here[column] == pytest.approx(true[column], rel=1e-4)
    for here, true in together(found, reference, "hill"):
        assert abs(here["hill"] - true["hill"]) <= here["error"] + true["error"]


def test_locking_is_within_its_bounds_of_float64(found, reference):
    for here, true in together(found, reference, "locking"):
        assert here["chance"] == true["chance"]
        assert abs(here["similarity"] - true["similarity"]) <= here["error"] + true["error"]


def test_support_and_localization_are_those_of_float64(found, reference):
    for here, true in together(found, reference, "update_support"):
        assert here["unchanged"] == true["unchanged"]
    for here, true in together(found, reference, "localization"):
        assert here["density"] == true["density"]
        assert here["overlap"] == pytest.approx(true["overlap"], abs=1e-5)  # the principal score is f32


def test_nulls_are_those_of_float64(found, reference):
    for here, true in together(found, reference, "nulls"):
        for column in ("stable_rank", "effective_rank", "energy_top16"):
            assert here[column] == pytest.approx(true[column], rel=1e-4)


class Kept(dict):
    """A cache in memory that counts."""

    loads = 0

    def load(self, key, name):
        self.loads += (key, name) in self
        return self.get((key, name))

    def save(self, key, name, tensors):
        self[key, name] = {part: tensor.clone() for part, tensor in tensors.items()}


def test_a_cached_base_gives_the_same_rows_and_is_shared(trajectory):
    base, snapshots = trajectory
    settings, cache = Settings(k=(16,), tables=("rotation", "localization")), Kept()
    first = measure_matrix(base, snapshots[:1], settings=settings, projection=True, cache=cache)
    assert (len(cache), cache.loads) == (2, 0)
    again = measure_matrix(base, snapshots[:1], settings=settings, projection=True, cache=cache)
    assert cache.loads == 2
    assert again == first == measure_matrix(base, snapshots[:1], settings=settings, projection=True)
    # Stored as bf16 the start is the same weight, so it finds the same factors.
    measure_matrix(base.bfloat16(), snapshots[:1], settings=settings, projection=True, cache=cache)
    assert len(cache) == 2


def test_only_what_was_asked_for_is_filled(trajectory):
    base, snapshots = trajectory
    for table in set(TABLES) - {"locking", "nulls"}:
        rows = measure_matrix(base, snapshots[:1], settings=Settings(k=(16,), tables=(table,)), projection=True).rows
        assert {name for name, found in rows.items() if found} == {table}


def test_snapshots_one_by_one_give_the_rows_of_all_together(trajectory, found):
    base, snapshots = trajectory
    matrix = Matrix(base, settings=CUTS, projection=True)
    taken = [matrix.snapshot(step, weight) for step, weight in snapshots]
    for table in set(TABLES) - {"locking", "nulls"}:
        rows = [row for one in taken for row in one.rows[table]]
        for here, true in zip(rows, found[table], strict=True):
            assert here["method"] == true["method"]
            assert [v for v in here.values() if isinstance(v, float)] == pytest.approx(
                [v for v in true.values() if isinstance(v, float)], rel=1e-5, abs=1e-9
            )
    assert len(locking_rows(taken)) == len(found["locking"])
    assert {(row["step"], row["step_other"]) for row in locking_rows(taken, {(1, 3)})} == {(1, 3)}


def test_an_identical_snapshot_is_zero_to_the_last_bit(trajectory):
    base, _ = trajectory
    rows = measure_matrix(base, [(1, base.clone())], settings=CUTS, projection=True).rows
    assert {row["max_deg"] for row in rows["rotation"]} == {0.0}
    assert {row["error_deg"] for row in rows["rotation"]} == {0.0}
    assert {number for row in rows["singular_shift"] for number in row["shifts"]} == {0.0}
    assert {(row["nss"], row["error"]) for row in rows["spectral_drift"]} == {(0.0, 0.0)}
    assert {row["reason"] for row in rows["update_spectrum"]} == {"zero update"}


@pytest.mark.parametrize("shape", [(600, 700), (700, 600)])
def test_degenerate_weights_give_what_the_reference_gives(shape):
    generator = torch.Generator().manual_seed(0)
    draw = lambda *extents: torch.randn(*extents, generator=generator)
    full, low = 0.02 * draw(*shape), 0.01 * draw(shape[0], 5) @ draw(5, shape[1])
    moved = full.clone()
    moved[0, 0] = 1.0
    pairs = [(full, 0 * full), (0 * full, full), (full, -full), (full, 1e-3 * full), (full, low), (low, 1.1 * low)]
    pairs += [
        (full, moved),
        (1e15 * full, 1.001e15 * full),
        (full, 0.02 * draw(*shape)),
        (0 * full + 1, 0 * full + 1.5),
    ]
    for before, after in pairs:
        here, true = (measure_matrix(before, [(1, after)], settings=s, projection=True).rows for s in (CUTS, EXACT))
        for a, b in together(here, true, "rotation"):
            assert a["reason"] == b["reason"]
            if a["reason"] is None:
                assert abs(a["max_deg"] - b["max_deg"]) <= a["error_deg"] + b["error_deg"]
        for a, b in together(here, true, "spectral_drift"):
            assert a["reason"] == b["reason"]
            assert a["nss"] is b["nss"] is None or abs(a["nss"] - b["nss"]) <= a["error"] + b["error"]


def test_every_bound_is_a_number(found):
    for table, columns in (("rotation", ("error_deg", "angle_error_deg")), ("locking", ("error",))):
        for row in found[table]:
            assert all(math.isfinite(row[column]) for column in columns)
