"""No number of any table lies outside its own error bar, whatever the weights are.

`python -m tests.adversary` draws more cases. The worst cases that were met stand here by name, with the right value.
"""

import pytest
import torch

from opd_ops.geometry import drr
from opd_ops.geometry.suite import Settings, measure_matrix
from opd_ops.geometry.update import Update
from tests.adversary.checks import check
from tests.adversary.families import STARTS, UPDATES, case, diagonal
from tests.adversary.regime import lowered

SHARE = 19  # cases of one test: each structure of a start once
ANGLES = {"output": 0.205, "input": 0.028}  # degrees, float64 LAPACK
CASES = {"dense": 152, "lowered": 152, "certified": 38}


@pytest.mark.parametrize(
    ("regime", "first"), [(regime, first) for regime, cases in CASES.items() for first in range(0, cases, SHARE)]
)
def test_every_number_is_within_its_error_bar_of_float64(regime, first):
    with lowered(regime):
        reports = [check(case(regime, number)) for number in range(first, first + SHARE)]
    assert sum(report.count for report in reports) > 30 * SHARE
    assert [text for report in reports for text in report.violations] == []


def test_every_structure_meets_every_kind_of_update():
    labels = (case("dense", number).label.split(": ")[1].split(" then")[0] for number in range(SHARE * len(UPDATES)))
    pairs = {(label.split(" ")[0], label.split(", ")[1]) for label in labels}
    assert pairs == {(start, kind) for start in STARTS for kind in UPDATES}


def axis_aligned():
    """W0 = diag((i + 1)^-0.7) [520, 560], one entry moved by a hundredth of itself and one by a thousandth."""
    w0 = diagonal(torch.arange(1, 521, dtype=torch.float64) ** -0.7, 520, 560).float()
    after = w0.clone()
    after[3, 3] *= 1.01
    after[100, 5] += 1e-3
    return w0, after


def test_zero_tails_of_axis_aligned_directions_stay_outside_of_them():
    """A tail that is zero once got a basis inside span U: 90 degrees with an error of 0.006 were written."""
    w0, after = axis_aligned()
    rows = measure_matrix(w0, [(1, after)], settings=Settings(k=(16,), tables=("rotation",)), projection=True).rows[
        "rotation"
    ]
    for row in rows:
        assert row["method"].startswith("drr-f32")
        assert row["max_deg"] < 0.25 and row["error_deg"] < 0.05
    assert {row["side"]: round(row["max_deg"], 3) for row in rows if row["view"] == "master"} == ANGLES


def test_a_basis_that_is_not_orthonormal_widens_the_bound(monkeypatch):
    """The certificate measures what it assumes: with the basis inside span U again, the bound holds the truth."""
    monkeypatch.setattr(drr, "_basis_outside", lambda x, project: drr._basis(project(drr._basis(x))))
    w0, after = axis_aligned()
    rows = measure_matrix(w0, [(1, after)], settings=Settings(k=(16,), tables=("rotation",)), projection=True).rows[
        "rotation"
    ]
    for row in rows:
        assert row["max_deg"] - row["error_deg"] <= 0.21


@pytest.mark.parametrize(("power", "shape"), [(p, (520, 530) if p % 4 else (530, 520)) for p in range(-38, 38, 6)])
def test_no_number_depends_on_the_scale_of_weights(power, shape):
    """The same matrix at powers of ten of f32: what has no unit is equal, what has one is in proportion."""
    generator = torch.Generator().manual_seed(0)
    base, step = torch.randn(*shape, generator=generator), 1e-3 * torch.randn(*shape, generator=generator)
    tables = ("rotation", "update_norm", "update_spectrum")
    settings = Settings(k=(8,), hill_k=(16,), locking_k=(), tables=tables)
    scale = 2.0 ** round(power * 3.321928094887362)

    def rows(factor):
        pair = ((base * factor).bfloat16(), ((base + step) * factor).bfloat16())
        return measure_matrix(pair[0], [(1, pair[1])], settings=settings, projection=True)

    here, reference = rows(scale), rows(1.0)
    assert here.problems == []
    for table in tables:
        for row, true in zip(here.rows[table], reference.rows[table], strict=True):
            for column in ("max_deg", "mean_deg", "stable_rank", "effective_rank", "relative_norm"):
                if column in row and power > -33:  # below, some of bf16 are subnormal and have fewer digits
                    assert row[column] == pytest.approx(true[column], rel=1e-5)
            if "frobenius" in row and power > -33:
                assert row["frobenius"] == pytest.approx(true["frobenius"] * scale, rel=1e-6)


def test_updates_from_zero_that_are_tiny_have_their_own_scale():
    """Gram matrices of 1e-23 once underflowed: stable rank 715.8 +- 0.02 of a matrix of rank 520 at most."""
    e = torch.randn(520, 560, generator=torch.Generator().manual_seed(0))
    for scale in (1e-21, 3e-22, 1e-22, 1e-23, 1e-30, 1e-36):
        settings = Settings(k=(4,), tables=("update_norm", "update_spectrum"))
        rows = measure_matrix(torch.zeros(520, 560), [(1, scale * e)], settings=settings, projection=True).rows
        s = torch.linalg.svdvals((scale * e).double() / scale)
        norm = rows["update_norm"][1]
        assert abs(norm["stable_rank"] - float(s.square().sum() / s[0] ** 2)) <= norm["stable_rank_error"]
        assert norm["frobenius"] == pytest.approx(float(s.norm()) * scale, rel=1e-6)


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e10])
def test_a_bound_from_random_starts_holds_at_every_scale(scale):
    """||E||_2 came from f32 fourth powers, which are 0 or infinite here: 0.0 +- 0.001 degrees of a truth of 90."""
    w0 = torch.diag(torch.linspace(1.5, 0.5, 560)) * scale
    after = w0.clone()
    after[500, 501] += 3 * scale
    settings = Settings(k=(1,), tables=("rotation", "singular_shift"))
    found = measure_matrix(w0, [(1, after)], settings=settings, projection=True)
    assert found.problems == []
    for row in found.rows["rotation"]:
        assert abs(row["max_deg"] - 90) <= row["error_deg"] + 1e-9
    shift = next(row for row in found.rows["singular_shift"] if row["view"] == "master")
    s = torch.linalg.svdvals(after.double() / scale)[0] - 1.5
    assert abs(shift["largest"] / scale - float(s)) <= shift["error"] / scale + 1e-6


@pytest.mark.parametrize("scale", [1e-11, 1.0, 1e11])
def test_leading_subspaces_are_within_their_errors_at_every_scale(scale):
    """Lanczos residuals are fourth powers of an update's scale, which f32 once lost: .056 with an error of .001."""
    generator = torch.Generator().manual_seed(0)
    basis = [torch.linalg.qr(torch.randn(600, 600, generator=generator, dtype=torch.float64)).Q for _ in range(2)]
    leading = 1.1**0.5 * (1 + 1e-3 * torch.arange(15, -1, -1, dtype=torch.float64))
    s = torch.cat([leading, torch.linspace(1, 0, 584, dtype=torch.float64) ** 0.5])
    e = (basis[0] * s) @ basis[1].T
    e = (e / e.abs().max() * scale).float()
    found = Update(e, vectors=16).subspaces((16,))
    u = torch.linalg.svd(e.double() / scale)[0][:, :16]
    missed = torch.linalg.matrix_norm(found.output.double() - u @ (u.T @ found.output.double()))
    assert float(missed) <= found.errors[0]


def test_the_probe_of_a_norm_is_not_known_to_the_update():
    """An update that is orthogonal to the start of a fixed seed would have a bound of nothing."""
    start = torch.randn(560, 16, generator=torch.Generator().manual_seed(561))
    x = torch.randn(560, generator=torch.Generator().manual_seed(1))
    q = torch.linalg.qr(start).Q
    x = x - q @ (q.T @ x)
    e = 3 * torch.outer(x / x.norm(), torch.ones(560) / 560**0.5)
    assert Update(e).norm_bound >= 2.99
