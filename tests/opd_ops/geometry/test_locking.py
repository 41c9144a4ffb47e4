import pytest
import torch

from opd_ops.geometry import locking
from opd_ops.geometry.locking import similarities
from opd_ops.geometry.update import Update


def updates(matrices, *cuts):
    return [(10 * (t + 1), Update(matrix).subspaces(cuts or (8,))) for t, matrix in enumerate(matrices)]


def noise(count, m, n, seed=0):
    return torch.randn(count, m, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_one_product_equals_the_definition(orthonormal):
    bases = torch.stack([orthonormal(30, 4, seed) for seed in range(5)])
    table = similarities(bases)
    for a in range(5):
        for b in range(5):
            expected = float((bases[a].T @ bases[b]).square().sum()) / 4
            assert float(table[a, b]) == pytest.approx(expected, rel=1e-13)


def test_a_fixed_direction_is_locked_at_one(planted):
    direction = planted(30, 50, s=torch.logspace(0, -1, 30, dtype=torch.float64)).weight
    found = locking.rows(updates([c * direction for c in (1e-4, 0.1, 1.0)]), "master")
    assert len(found) == 2 * 3
    for row in found:
        # Subspaces are good to a few eps / (relative gap 0.08); similarity errs by the square.
        assert row["similarity"] == pytest.approx(1.0, abs=1e-12)
        assert row["similarity"] <= 1.0


def test_random_updates_meet_at_chance_on_each_side():
    found = locking.rows(updates(noise(24, 32, 96)), "master")
    for side, dimension in (("output", 32), ("input", 96)):
        rows = [row for row in found if row["side"] == side]
        assert {row["chance"] for row in rows} == {8 / dimension}
        mean = sum(row["similarity"] for row in rows) / len(rows)
        # Sim has a standard deviation under 1.5 / dimension; 276 uncorrelated pairs bring it to 0.09 / dimension.
        assert mean == pytest.approx(8 / dimension, abs=0.4 / dimension)


def test_disjoint_directions_do_not_meet(orthonormal):
    u, v = orthonormal(40, 16, 0), orthonormal(60, 16, 1)
    s = torch.linspace(2, 1, 8, dtype=torch.float64)
    matrices = [(u[:, half] * s) @ v[:, half].T for half in (slice(0, 8), slice(8, 16))]
    for row in locking.rows(updates(matrices), "master"):
        assert row["similarity"] < 1e-24  # squares of cosines near 1e-15


def test_planted_half_overlap_is_one_half(orthonormal):
    u, v = orthonormal(40, 12, 0), orthonormal(60, 12, 1)
    s = torch.linspace(2, 1, 8, dtype=torch.float64)
    matrices = [(u[:, part] * s) @ v[:, part].T for part in (slice(0, 8), slice(4, 12))]
    for row in locking.rows(updates(matrices), "master"):
        assert row["similarity"] == pytest.approx(0.5, rel=1e-12)


def test_pairs_are_ordered_and_complete():
    found = locking.rows(updates(noise(4, 10, 12), 1, 2), "bf16")
    pairs = [(row["step"], row["step_other"]) for row in found if (row["side"], row["k"]) == ("input", 2)]
    assert pairs == [(10, 20), (10, 30), (10, 40), (20, 30), (20, 40), (30, 40)]
    assert len(found) == 2 * 2 * 6
    assert locking.rows(updates(noise(1, 10, 12), 1), "bf16") == []
    assert locking.rows([], "bf16") == []


def test_undefined_subspaces_are_null_with_their_reason():
    full, zero, thin = noise(1, 20, 30)[0], torch.zeros(20, 30).double(), torch.zeros(20, 30).double()
    thin[0, 0] = thin[1, 1] = 1.0
    found = locking.rows(updates([full, zero, thin, 2 * full]), "master")
    reasons = {(row["step"], row["step_other"]): (row["similarity"], row["reason"]) for row in found}
    assert reasons[10, 20] == (None, "zero update (step 20)")
    assert reasons[20, 30] == (None, "zero update (step 20)")
    assert reasons[10, 30] == (None, "sigma_8 of the update is numerically zero (step 30)")
    assert reasons[10, 40] == (pytest.approx(1.0), None)


def test_cut_past_the_matrix_is_null_with_its_reason():
    for row in locking.rows(updates(noise(2, 6, 12)), "master"):
        assert (row["similarity"], row["reason"]) == (None, "k=8 exceeds min(m, n)=6 (step 10)")
