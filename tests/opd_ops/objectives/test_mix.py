import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from opd_ops.objectives.loss import root_mean_square
from opd_ops.recipe import Mix, Opd


def coefficients(alpha, scale, *rms):
    return Mix(alpha=alpha, opd=Opd(teacher=None), scale=scale).coefficients(rms)


@given(alpha=st.floats(0, 1), opd=st.floats(0, 10), rlvr=st.floats(0, 10))
def test_raw_coefficients_do_not_look_at_the_signals(alpha, opd, rlvr):
    assert coefficients(alpha, "raw", opd, rlvr) == (alpha, 1 - alpha)


def test_rms_divides_each_term_by_its_own_size():
    assert coefficients(0.25, "rms", 0.5, 2.0) == pytest.approx((0.5, 0.375))


def test_a_term_without_signal_has_no_coefficient():
    assert coefficients(0.25, "rms", 0.5, 0.0) == pytest.approx((0.5, 0.0))
    assert coefficients(0.25, "rms", 0.0, 0.0) == (0.0, 0.0)
    assert coefficients(1.0, "rms", 0.5, 0.0) == pytest.approx((2.0, 0.0))


@given(scale=st.floats(1e-3, 1e3), alpha=st.floats(0, 1))
def test_scaled_by_rms_a_signal_has_size_alpha_whatever_its_units(scale, alpha):
    gap, mask = scale * torch.tensor([[1.0, -2.0, 0.5]]), torch.ones(1, 3)
    coefficient, _ = coefficients(alpha, "rms", root_mean_square(gap, mask), 1.0)
    assert root_mean_square(coefficient * gap, mask) == pytest.approx(alpha, abs=1e-6)


def test_rms_by_hand_and_only_under_the_mask():
    values, mask = torch.tensor([[3.0, -4.0, 100.0]]), torch.tensor([[1.0, 1.0, 0.0]])
    assert root_mean_square(values, mask) == pytest.approx(math.sqrt(12.5))
    assert root_mean_square(values, torch.zeros(1, 3)) == 0.0
