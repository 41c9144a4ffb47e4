import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from opd_ops.geometry import support
from opd_ops.geometry.support import compare_weights, rows
from opd_ops.geometry.views import as_view

DTYPES = [torch.bfloat16, torch.float16, torch.float32, torch.float64]
# What patterns and values disagree about, next to what they agree about.
SPECIAL = [0.0, -0.0, 1.0, -1.0, float("inf"), float("-inf"), float("nan"), 1e-7, -1e-7, 2.0**-133, 1.0 + 2.0**-9, 7e4]


@given(many=st.integers(0, 600), seed=st.integers(0, 1000))
def test_planted_bf16_changes_are_found_exactly(many, seed):
    generator = torch.Generator().manual_seed(seed)
    before = torch.randn(20, 30, generator=generator).bfloat16()
    after = before.clone()
    where = torch.randperm(600, generator=generator)[:many]
    patterns = after.view(torch.int16).view(-1)
    patterns[where] ^= 1  # the neighbouring bf16 number: the smallest change there is
    found = compare_weights(before, after, "bf16")
    assert (found.count, found.numel, found.unchanged) == (many, 600, (600 - many) / 600)
    assert found.bits is not None
    assert found.bits.to_bool().nonzero().flatten().tolist() == sorted(where.tolist())


def test_signed_zeros_are_equal_and_nan_is_changed_against_itself():
    before = torch.tensor([0.0, -0.0, float("nan"), 1.0, float("inf")])
    after = torch.tensor([-0.0, 0.0, float("nan"), float("nan"), float("inf")])
    for view in ("bf16", "master"):
        assert compare_weights(before, after, view).unchanged == 3 / 5


@pytest.mark.parametrize("view", ["bf16", "master"])
@pytest.mark.parametrize("stored", DTYPES)
@pytest.mark.parametrize("start", DTYPES)
@given(pairs=st.lists(st.tuples(st.sampled_from(SPECIAL), st.sampled_from(SPECIAL)), min_size=1, max_size=20))
def test_patterns_say_what_values_say(start, stored, view, pairs):
    before, after = (torch.tensor(side, dtype=torch.float64) for side in zip(*pairs, strict=True))
    before, after = before.to(start), after.to(stored)
    found = compare_weights(before, after, view)
    assert found.bits is not None
    assert torch.equal(found.bits.to_bool(), as_view(before, view) != as_view(after, view))


@pytest.mark.parametrize("dtype", DTYPES)
def test_negative_nan_is_changed_against_itself(dtype):
    pattern = {2: torch.int16, 4: torch.int32, 8: torch.int64}[dtype.itemsize]
    nan = torch.full((3,), -1, dtype=pattern).view(dtype)
    for view in ("bf16", "master"):
        assert compare_weights(nan, nan.clone(), view).count == 3


def test_an_update_below_half_an_ulp_shows_in_master_only():
    before = torch.ones(10)
    after = before + 2.0**-10
    assert compare_weights(before, after, "bf16").unchanged == 1.0
    assert compare_weights(before, after, "master").unchanged == 0.0


def test_mixed_storage_compares_values():
    before = torch.randn(64, generator=torch.Generator().manual_seed(0)).bfloat16()
    assert compare_weights(before, before.float(), "master").unchanged == 1.0


def test_chunks_cover_every_weight_once(monkeypatch):
    monkeypatch.setattr(support, "CHUNK", 7)
    before = torch.zeros(5, 5)
    after = before.clone()
    after.view(-1)[[0, 6, 7, 24]] = 1.0
    assert compare_weights(before, after, "bf16").unchanged == 21 / 25
    turned = compare_weights(before.T, after.T, "bf16")
    assert turned.bits is not None
    assert torch.equal(turned.bits.to_bool().reshape(5, 5), (after != 0).T)


def test_counting_alone_keeps_no_bits():
    found = compare_weights(torch.zeros(9), torch.ones(9), "master", weights_only_count=True)
    assert (found.bits, found.count) == (None, 9)


def test_a_scalar_and_a_stack_are_weights_too():
    assert compare_weights(torch.tensor(1.0), torch.tensor(2.0), "bf16").unchanged == 0.0
    assert compare_weights(torch.zeros(2, 3, 4), torch.zeros(2, 3, 4), "bf16").numel == 24


def test_a_row_holds_the_fraction_and_what_it_is_of():
    found = rows(compare_weights(torch.zeros(4), torch.tensor([0.0, 0.0, 0.0, 1.0]), "bf16"), "bf16", "other")
    assert found == [{"view": "bf16", "numel": 4, "unchanged": 0.75, "scope": "other"}]


def test_foreign_dtypes_views_and_shapes_are_refused_by_name():
    with pytest.raises(ValueError, match="int8"):
        compare_weights(torch.zeros(1, dtype=torch.int8), torch.zeros(1), "bf16")
    with pytest.raises(ValueError, match="fp8"):
        compare_weights(torch.zeros(1), torch.zeros(1), "fp8")
    with pytest.raises(ValueError, match=r"\(2, 3\) and \(3, 2\)"):
        compare_weights(torch.zeros(2, 3), torch.zeros(3, 2), "bf16")
