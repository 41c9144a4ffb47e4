"""Bases of subspaces in few bytes: exact where that is said, and no further off than their errors say."""

import math

import pytest
import torch

from opd_ops.geometry import locking
from opd_ops.geometry.fixed_point import FREE, SHARE, pack, round_subspaces, unpack
from opd_ops.geometry.update import Subspaces, Update, no_subspaces


def subspaces(output, given, error, cuts=(4,)):
    return Subspaces(output, given, cuts, (error,) * len(cuts), (None,) * len(cuts), "gram-f64")


def similarity(one, other):
    """Sim_4 of the input sides, and the stored bound on its error."""
    (row,) = (row for row in locking.rows([(1, one), (2, other)], "master") if row["side"] == "input")
    return row["similarity"], row["error"]


@pytest.mark.parametrize("n", [5, 64, 3000])
@pytest.mark.parametrize(
    ("error", "dtype"), [(1e-13, torch.uint8), (4e-7, torch.uint8), (1e-2, torch.int16), (2.0, torch.int16)]
)
def test_bytes_are_as_few_as_the_error_allows(error, dtype, n, orthonormal):
    found = round_subspaces(subspaces(orthonormal(n, 4, 1), orthonormal(2 * n, 4, 2), error))
    for basis, exact in ((found.output, orthonormal(n, 4, 1)), (found.input, orthonormal(2 * n, 4, 2))):
        packed, unit = pack(basis)
        assert packed.dtype == dtype and packed.shape == ((n if basis is found.output else 2 * n), 4, 3)[: packed.ndim]
        assert math.frexp(unit)[0] == 0.5, "a power of two"
        again = unpack(packed, unit)
        assert again.dtype == torch.float32 and torch.equal(again, basis)
        off = float((basis.double() - exact).norm())
        assert error + 2 * off <= found.errors[0] or found.errors[0] == 2.0
    assert found.errors[0] <= max(error * (1 + SHARE), error + FREE * 2) and found.errors[0] <= 2.0


@pytest.mark.parametrize("spread", [0.0, 1e-3, 1.0, 100.0])
def test_a_similarity_is_no_further_off_than_its_error_says(spread, orthonormal):
    """Two bases that nearly agree, in which rounding shows most; even, and with a few large entries."""
    generator = torch.Generator().manual_seed(7)
    for n in (6, 40, 2000):
        peaks = torch.logspace(0, -3 * (spread > 0), n, dtype=torch.float64)[:, None]
        first = torch.linalg.qr(peaks * torch.randn(n, 4, generator=generator, dtype=torch.float64)).Q
        noise = spread / n**0.5 * torch.randn(n, 4, generator=generator, dtype=torch.float64)
        second = torch.linalg.qr(first + noise).Q
        for error in (0.0, 1e-3, 2.0):
            exact = [subspaces(first, first, error), subspaces(second, second, error)]
            before, bound = similarity(*exact)
            after, more = similarity(*(round_subspaces(one) for one in exact))
            assert abs(after - before) <= more - bound or more == 1.0
            assert more - bound <= max(2 * SHARE * bound, 2 * FREE)


def test_the_bound_holds_for_the_worst_of_roundings():
    """Every entry is off by half a unit, towards the other basis: the change is of first order in their number."""
    n = 1024
    basis = torch.full((n, 1), 1 / 32.0, dtype=torch.float64) + 0.49 * 2.0**-19
    basis[-1] = 0.0
    basis[-1] = (1 - basis.square().sum()).clamp(min=0).sqrt()
    basis /= basis.norm()
    one = subspaces(basis, basis, 1e-3, (1,))
    before, bound = similarity(one, one)
    after, more = similarity(round_subspaces(one), round_subspaces(one))
    assert before == pytest.approx(1.0, abs=1e-14)
    assert abs(after - before) <= more - bound


def test_what_no_integer_of_three_bytes_holds_is_f32():
    """A basis of one large entry and many small ones, each of which would lose its digits."""
    basis = torch.full((10**6, 1), 1e-3, dtype=torch.float64)
    basis[0] = 1.0
    basis /= basis.norm()
    found = round_subspaces(subspaces(basis, basis, 1e-13, (1,)))
    packed, unit = pack(found.input)
    assert packed.dtype == torch.float32 and unit == 1.0 and unpack(packed, unit) is packed
    assert found.errors[0] < 2e-7


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_basis_of_any_size_and_dtype_is_packed_as_it_is(dtype):
    for basis in (torch.zeros(5, 0), torch.zeros(5, 2), torch.eye(7, 3), -torch.eye(7, 3), torch.randn(9, 2) / 3):
        packed, unit = pack(basis.to(dtype))
        assert torch.equal(unpack(packed, unit).double(), basis.double())


def test_subspaces_that_there_are_not_stay_so():
    none = no_subspaces((5, 3), (2, 9), ("zero update", "k=9 exceeds min(m, n)=3"))
    found = round_subspaces(none)
    assert (found.errors, found.reasons, found.output.shape) == (none.errors, none.reasons, (5, 0))
    e = torch.randn(20, 12, generator=torch.Generator().manual_seed(3)).double()
    some = round_subspaces(Update(e).subspaces((4, 15)))
    assert some.reasons[0] is None and some.errors[0] < 1e-5 and some.errors[1] == math.inf


def test_rounding_again_changes_nothing(orthonormal):
    for error in (1e-13, 1e-2):
        once = round_subspaces(subspaces(orthonormal(30, 4, 1), orthonormal(50, 4, 2), error))
        twice = round_subspaces(once)
        assert torch.equal(once.output, twice.output) and torch.equal(once.input, twice.input)
        assert once.errors == twice.errors
