from itertools import pairwise, product

import pytest
import torch

from opd_ops.geometry import VERSION, locking
from opd_ops.geometry.locking import pair_similarities, similarities
from opd_ops.geometry.snapshot import Snapshot, locking_columns, locking_rows
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


@pytest.mark.parametrize(
    "pairs",
    [
        list(product(range(6), repeat=2)),
        [(0, 5), (4, 5), (1, 2), (2, 5), (3, 5), (0, 1), (0, 5)],  # out of order, with gaps, one twice
        [(2, 3)],
        [],
    ],
)
def test_products_of_neighbours_equal_the_definition(pairs, orthonormal):
    bases = torch.stack([orthonormal(30, 4, seed) for seed in range(6)])
    table = pair_similarities(bases.mT.contiguous(), pairs)
    assert len(table) == len(pairs)
    for (a, b), similarity in zip(pairs, table, strict=True):
        expected = float((bases[a].T @ bases[b]).square().sum()) / 4
        assert float(similarity) == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize("cuts", [(8,), (1, 2, 24)])
def test_the_pairs_wanted_are_the_rows_that_all_pairs_have_of_them(cuts):
    made = updates([*noise(5, 20, 30), torch.zeros(20, 30).double(), *noise(2, 20, 30, 1)], *cuts)
    every = locking.rows(made, "master")
    wanted = {(10, 80), (30, 40), (40, 80), (50, 60), (60, 80), (70, 80), (80, 90)}  # there is no step 90
    chosen = locking.rows(made, "master", wanted)
    expected = [row for row in every if (row["step"], row["step_other"]) in wanted]
    assert len(expected) == 6 * 2 * len(cuts)
    for row, other in zip(chosen, expected, strict=True):
        assert row | {"similarity": 0} == other | {"similarity": 0}
        assert (row["similarity"] or 0) == pytest.approx(other["similarity"] or 0, rel=1e-13)
    assert locking.rows(made, "master", set()) == []


def test_columns_are_the_rows_turned():
    made = updates(noise(4, 10, 12), 1, 2)
    columns = locking.columns(made, "bf16", {(10, 20), (20, 40)})
    assert tuple(columns) == locking.COLUMNS
    assert rows_of(columns) == locking.rows(made, "bf16", {(10, 20), (20, 40)})


def test_work_grows_with_the_pairs_wanted_and_not_with_their_square(monkeypatch):
    rows = []
    product = torch.Tensor.__matmul__
    monkeypatch.setattr(torch.Tensor, "__matmul__", lambda a, b: (rows.append(len(a)), product(a, b))[1])
    made = updates(noise(40, 10, 12), 3)
    rows.clear()
    wanted = {(10 * step, 400) for step in range(1, 40)} | {(10 * step, 10 * step + 10) for step in range(1, 40)}
    locking.columns(made, "bf16", wanted)
    assert sum(rows) == 2 * 3 * len(wanted)  # sides, and rows of the left factor for each pair


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


def test_pairs_are_chosen_of_all_steps_and_of_those_that_moved():
    """The snapshot before the third is the first that moved, whatever was stored between."""
    full = noise(3, 20, 30)
    made = [Update(e).subspaces((8,)) for e in (full[0], torch.zeros(20, 30).double(), full[1], full[2])]
    taken = [Snapshot(step, "bf16", {}, {"bf16": one}) for step, one in zip((1, 2, 3, 4), made, strict=True)]
    found = locking_columns(taken, pairwise)
    pairs = [(row["step"], row["step_other"], row["reason"]) for row in rows_of(found) if row["side"] == "input"]
    assert pairs == [(1, 2, "zero update (step 2)"), (1, 3, None), (2, 3, "zero update (step 2)"), (3, 4, None)]
    assert set(found["dtype"]) == {"bf16"} and set(found["method"]) == {f"{made[0].method}/{VERSION}"}


def test_views_that_only_some_snapshots_have_are_paired_among_these():
    bases = [Update(e).subspaces((8,)) for e in noise(3, 20, 30)]
    views = (("bf16",), ("bf16", "master"), ("bf16", "master"))
    taken = [
        Snapshot(step, "fp32", {}, dict.fromkeys(names, one))
        for step, (names, one) in enumerate(zip(views, bases, strict=True))
    ]
    for wanted, count in ((None, 3), ({(0, 1), (1, 2)}, 2)):
        found = [
            (row["view"], row["step"], row["step_other"])
            for row in locking_rows(taken, wanted)
            if row["side"] == "input"
        ]
        assert len(found) == count + 1 and found[-1] == ("master", 1, 2)
    assert locking_rows([]) == [] and locking_columns([])["step"] == []


def rows_of(columns):
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
