import torch
from hypothesis import given
from hypothesis import strategies as st

from opd_ops.geometry import support
from opd_ops.geometry.support import unchanged


@given(changes=st.integers(0, 600), seed=st.integers(0, 1000))
def test_planted_bf16_changes_are_counted_exactly(changes, seed):
    generator = torch.Generator().manual_seed(seed)
    before = torch.randn(20, 30, generator=generator).bfloat16()
    after = before.clone()
    where = torch.randperm(600, generator=generator)[:changes]
    bits = after.view(torch.int16).view(-1)
    bits[where] ^= 1  # the neighbouring bf16 number: the smallest change there is
    assert unchanged(before, after, "bf16") == (600 - changes) / 600


def test_signed_zeros_are_equal_and_nan_is_changed_against_itself():
    before = torch.tensor([0.0, -0.0, float("nan"), 1.0, float("inf")])
    after = torch.tensor([-0.0, 0.0, float("nan"), float("nan"), float("inf")])
    for view in ("bf16", "master"):
        assert unchanged(before, after, view) == 3 / 5


def test_an_update_below_half_an_ulp_shows_in_master_only():
    before = torch.ones(10)
    after = before + 2.0**-10
    assert unchanged(before, after, "bf16") == 1.0
    assert unchanged(before, after, "master") == 0.0


def test_mixed_storage_compares_values():
    before = torch.randn(64, generator=torch.Generator().manual_seed(0)).bfloat16()
    assert unchanged(before, before.float(), "master") == 1.0


def test_chunks_cover_every_weight_once(monkeypatch):
    monkeypatch.setattr(support, "CHUNK", 7)
    before = torch.zeros(5, 5)
    after = before.clone()
    after.view(-1)[[0, 6, 7, 24]] = 1.0
    assert unchanged(before, after, "bf16") == 21 / 25
    assert unchanged(before.T, after.T, "bf16") == 21 / 25
