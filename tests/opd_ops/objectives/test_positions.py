"""Sums by position, and the bins they are told in."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from opd_ops.objectives.mismatch import Mismatch
from opd_ops.objectives.positions import Positions, bins


@given(st.integers(1, 20_000))
def test_bins_cover_every_position_once_and_double(width):
    found = bins(width)
    assert found[0][0] == 0 and found[-1][1] == width
    assert all(a[1] == b[0] for a, b in pairwise(found))
    assert found[: min(width, 16)] == [(i, i + 1) for i in range(min(width, 16))]
    assert all(end <= 2 * begin for begin, end in found[16:])
    assert len(found) <= 16 + 11


@given(st.integers(0, 2**31), st.integers(1, 40), st.integers(1, 6), st.integers(1, 6))
def test_rows_are_means_under_the_mask_whatever_the_split(seed, width, rows, split):
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(rows, width, generator=generator)
    mask = (torch.rand(rows, width, generator=generator) < 0.6).float()
    found = Positions(width)
    for begin in range(0, rows, split):
        part = slice(begin, begin + split)
        found.add(mask[part], kl=values[part], overlap=None)
    assert all("overlap" not in row for row in found.rows())
    for row in found.rows():
        part = slice(row["position"], row["position_end"])
        under = values[:, part][mask[:, part] > 0].double()
        assert row["tokens"] == len(under) > 0
        assert row["kl"] == pytest.approx(float(under.mean()), abs=1e-6)
    if mask.any():
        assert found.means()["kl"] == pytest.approx(float(values[mask > 0].double().mean()), abs=1e-6)


def test_a_mismatch_is_told_by_its_tail():
    found = Mismatch()
    trainer = torch.tensor([[-1.0, -2.0, -3.0], [-1.0, -1.0, -9.0]])
    rollout = torch.tensor([[-1.0, -2.05, -3.2], [-1.0, -0.7, 0.0]])
    mask = torch.tensor([[1, 1, 1], [1, 1, 0]]).float()
    found.add(trainer, rollout, mask)
    assert found.summary() == {"mismatch_max": pytest.approx(0.3), "mismatch_outside": pytest.approx(2 / 5)}


def test_without_anything_to_compare_there_is_no_mismatch():
    found = Mismatch()
    found.add(torch.zeros(1, 2), None, torch.ones(1, 2))
    found.add(torch.zeros(1, 2), torch.ones(1, 2), torch.zeros(1, 2))
    assert found.summary() == {}
