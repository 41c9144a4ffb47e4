import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from opd_ops.geometry.exact import factor
from opd_ops.geometry.localization import mask_rank, masks, rows, top


def localize(w0, changed, alpha=(0.3, 0.5)):
    base = w0.double()
    found = rows(masks(base, factor(base, mask_rank(*base.shape)), alpha), changed, "bf16")
    return {(row["mask"], row["alpha"]): row for row in found}


@given(
    values=st.lists(st.integers(-3, 3), min_size=1, max_size=60),
    alpha=st.floats(0.01, 0.99),
)
def test_a_mask_weighs_exactly_alpha_n_with_any_ties(values, alpha):
    score = torch.tensor(values, dtype=torch.float64)
    members = top(score, alpha)
    everything = torch.ones(len(values), dtype=torch.bool)
    # Exact but for the one rounding of share * ties.
    assert members.weight(everything) == pytest.approx(alpha * len(values), rel=1e-15, abs=1e-15)
    assert 0.0 < members.share <= 1.0 or alpha * len(values) == int(members.inside.sum())
    if bool(members.inside.any()):
        assert score[members.inside].min() > score[members.tied].max()


def test_ties_share_what_random_tie_breaking_would_give_on_average():
    score = torch.tensor([5.0, 1.0, 1.0, 1.0, 0.0], dtype=torch.float64)
    members = top(score, 0.4)  # weight 2: one sure member, a third of each of three ties
    assert members.inside.tolist() == [True, False, False, False, False]
    assert members.tied.tolist() == [False, True, True, True, False]
    assert members.share == pytest.approx(1 / 3)


def test_a_constant_matrix_is_all_tie_and_gives_chance():
    changed = torch.zeros(16, 16, dtype=torch.bool)
    changed[0, :5] = True
    assert localize(torch.ones(16, 16), changed)["low_magnitude", 0.3]["overlap"] == pytest.approx(0.3, rel=1e-15)


def test_changes_on_the_smallest_weights_fill_the_low_mask():
    w0 = torch.arange(1.0, 401.0).reshape(20, 20) * torch.tensor([1.0, -1.0]).repeat(10)
    found = localize(w0, w0.abs() <= 100)
    assert found["low_magnitude", 0.3]["overlap"] == 1.0
    assert found["low_magnitude", 0.3]["density"] == 0.25
    assert found["low_magnitude", 0.5]["rank"] is None
    assert localize(w0, w0.abs() > 300)["low_magnitude", 0.5]["overlap"] == 0.0


def test_the_principal_mask_follows_the_low_rank_part_not_the_entries():
    """Rank 2 on the upper half (entries 1, sigma 8 and 8), a diagonal on the lower (entries 3, but sigma only 3)."""
    w0 = torch.ones(16, 16, dtype=torch.float64)
    w0[4:8, ::2] = -1.0
    w0[8:] = 0.0
    w0[8:, 8:] = 3.0 * torch.eye(8, dtype=torch.float64)
    upper = torch.zeros(16, 16, dtype=torch.bool)
    upper[:8] = True
    assert localize(w0, upper)["principal", 0.5]["overlap"] == 1.0
    assert localize(w0, w0 == 3.0)["principal", 0.5]["overlap"] == 0.0
    assert localize(w0, upper)["principal", 0.5]["rank"] == 2


def test_random_changes_hit_every_mask_at_chance():
    generator = torch.Generator().manual_seed(3)
    w0 = torch.randn(200, 200, generator=generator)
    changed = torch.rand(200, 200, generator=generator) < 0.5
    for (_, alpha), row in localize(w0, changed).items():
        # 20 000 draws at p = 0.3 .. 0.5: standard error 0.0035 at most.
        assert row["overlap"] == pytest.approx(alpha, abs=4 * 0.0035)


@given(seed=st.integers(0, 1000), density=st.floats(0.05, 1.0))
def test_overlap_obeys_the_counting_bounds(seed, density):
    """overlap d <= alpha <= overlap d + (1 - d): the argument that dates the paper's figure to alpha = 0.3."""
    generator = torch.Generator().manual_seed(seed)
    w0 = torch.randn(16, 24, generator=generator)
    changed = torch.rand(16, 24, generator=generator) < density
    for row in localize(w0, changed).values():
        if row["overlap"] is not None:
            hit, d = row["overlap"] * row["density"], row["density"]
            assert hit - 1e-12 <= row["alpha"] <= hit + (1 - d) + 1e-12


def test_nothing_changed_has_no_overlap():
    for row in localize(torch.ones(8, 8), torch.zeros(8, 8, dtype=torch.bool)).values():
        assert (row["overlap"], row["density"], row["reason"]) == (None, 0.0, "no weight changed")


def test_rank_is_the_papers_64_and_an_eighth_of_small_matrices():
    assert [mask_rank(*s) for s in ((4, 9), (128, 384), (576, 1536), (4096, 1024))] == [1, 16, 64, 64]


def test_masks_come_from_the_views_own_start(pair):
    """Master weights below bf16 resolution order the low mask; in bf16 the same entries are one mass of ties."""
    w0 = 1.0 + torch.arange(64.0).reshape(8, 8) * 2.0**-16
    w = torch.where(w0 < w0.median(), w0 * 1.5, w0)
    overlap = {
        row["view"]: row["overlap"]
        for row in pair(w0, w, k=(2,)).rows["localization"]
        if (row["mask"], row["alpha"]) == ("low_magnitude", 0.5)
    }
    assert overlap["master"] == 1.0
    assert overlap["bf16"] == pytest.approx(0.5)
