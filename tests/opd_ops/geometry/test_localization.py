import math

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from opd_ops.geometry import localization
from opd_ops.geometry.exact import factorise
from opd_ops.geometry.localization import Mask, Scores, mask_rank, masks, missing, rows, top_members
from opd_ops.geometry.support import Changes
from tests.opd_ops.geometry.conftest import pack_bits

DTYPES = [torch.bfloat16, torch.float16, torch.float32, torch.float64]


def where(changed):
    bits = pack_bits(changed)
    return Changes(bits, bits.count(), bits.numel)


def masks_of(w0, alpha=(0.3, 0.5)):
    found = factorise(w0.double(), mask_rank(*w0.shape))
    return masks(w0, found.u, found.s, found.v, alpha)


def localize(w0, changed, alpha=(0.3, 0.5)):
    return {(row["mask"], row["alpha"]): row for row in rows(masks_of(w0, alpha), where(changed), "bf16")}


def by_sorting(score, alpha):
    """inside, tied, share of the largest scores, by a sort."""
    target = alpha * score.numel()
    threshold = score.flatten().sort(descending=True).values[math.ceil(target) - 1]
    inside, tied = score > threshold, score == threshold
    return inside.flatten(), tied.flatten(), (target - int(inside.sum())) / int(tied.sum())


def blocks(score, size):
    flat = score.flatten()
    return Scores(lambda: flat.split(size), score.dtype, score.numel())


def agree(members, expected):
    inside, tied, share = expected
    assert torch.equal(members.inside.to_bool(), inside)
    assert torch.equal(members.tied.to_bool(), tied)
    assert members.share == share


grid = st.integers(-3, 3).map(float)  # heavy ties, both signs
wide = st.floats(-60000, 60000, width=16)  # what every dtype holds, to the subnormals


@pytest.mark.parametrize("largest", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
@given(
    values=st.one_of(st.lists(grid, min_size=1, max_size=60), st.lists(wide, min_size=1, max_size=60)),
    alphas=st.lists(st.floats(0.01, 0.99), max_size=3),
    size=st.integers(8, 70),
)
@settings(max_examples=60)
@example(values=[0.0] * 9, alphas=[0.3, 0.5], size=4)
@example(values=[0.0, -0.0, 0.0, 1.0, -1.0], alphas=[0.5, 0.5], size=2)
@example(values=[-7.0] * 10, alphas=[0.1, 0.9], size=10)
def test_selection_is_what_a_sort_gives(dtype, largest, values, alphas, size):
    score = torch.tensor(values, dtype=torch.float64).to(dtype)
    found = top_members(blocks(score, size), tuple(alphas), largest)
    magnitude = score.double().abs() * (1.0 if largest else -1.0)
    assert len(found) == len(alphas)
    for members, alpha in zip(found, alphas, strict=True):
        agree(members, by_sorting(magnitude, alpha))


@pytest.mark.parametrize("dtype", DTYPES)
def test_selection_separates_scores_that_differ_in_the_last_bit(dtype):
    """Neighbouring numbers across a power of two, in random order: every digit of the pattern decides somewhere."""
    pattern = {2: torch.int16, 4: torch.int32, 8: torch.int64}[dtype.itemsize]
    one = int(torch.ones((), dtype=dtype).view(pattern))
    order = torch.randperm(1000, generator=torch.Generator().manual_seed(0))
    score = (one - 500 + order).to(pattern).view(dtype)
    for alpha, members in zip((0.1, 0.5, 0.777), top_members(blocks(score, 64), (0.1, 0.5, 0.777)), strict=True):
        agree(members, by_sorting(order.double(), alpha))
        assert members.tied.count() == 1


@given(values=st.lists(st.integers(-3, 3), min_size=1, max_size=60), alpha=st.floats(0.01, 0.99))
def test_a_mask_weighs_exactly_alpha_n_with_any_ties(values, alpha):
    score = torch.tensor(values, dtype=torch.float32)
    (members,) = top_members(blocks(score, 16), (alpha,))
    everything = pack_bits(torch.ones(len(values), dtype=torch.bool))
    # Exact but for the one rounding of share * ties.
    assert members.weight(everything) == pytest.approx(alpha * len(values), rel=1e-15, abs=1e-15)
    assert 0.0 < members.share <= 1.0


def test_ties_share_what_random_tie_breaking_would_give_on_average():
    score = torch.tensor([5.0, 1.0, 1.0, 1.0, 0.0])
    (members,) = top_members(blocks(score, 5), (0.4,))  # weight 2: one sure member, a third of each of three ties
    assert members.inside.to_bool().tolist() == [True, False, False, False, False]
    assert members.tied.to_bool().tolist() == [False, True, True, True, False]
    assert members.share == pytest.approx(1 / 3)


def test_scores_that_change_between_readings_are_an_error():
    readings = iter([torch.arange(9.0), torch.arange(9.0), torch.zeros(9)])
    with pytest.raises(RuntimeError, match="scores changed between two readings"):
        top_members(Scores(lambda: [next(readings)], torch.float32, 9), (0.5,))


@pytest.mark.parametrize("shape", [(40, 56), (56, 40), (33, 7), (1, 30), (30, 1)])
def test_masks_are_those_of_the_whole_score_matrices(shape, monkeypatch):
    """The product by row blocks against one float64 product; in a Gaussian matrix no two entries are 1e-6 close."""
    monkeypatch.setattr(localization, "CHUNK", 64)
    w0 = torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found, r = factorise(w0, 96), mask_rank(*shape)
    principal = ((found.u[:, :r] * found.s[:r]) @ found.v[:, :r].T).abs()
    expected = {"principal": principal, "low_magnitude": -w0.abs()}
    for mask in masks(w0, found.u, found.s, found.v, (0.3, 0.5)):
        inside, _, share = by_sorting(expected[mask.name], mask.alpha)
        assert mask.rank == (r if mask.name == "principal" else None)
        assert torch.equal(mask.members.inside.to_bool(), inside)
        assert mask.members.share == share


def test_no_scale_of_the_weights_leaves_the_range_of_the_product():
    w0 = torch.randn(16, 24, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    plain, *scaled = ([mask.members for mask in masks_of(scale * w0)] for scale in (1.0, 2.0**-200, 2.0**200))
    for other in scaled:
        assert [one.inside.packed.tolist() for one in other] == [one.inside.packed.tolist() for one in plain]


def test_a_zero_matrix_is_all_tie():
    for mask in masks_of(torch.zeros(8, 8)):
        assert (mask.members.inside.count(), mask.members.tied.count()) == (0, 64)
        assert mask.members.share == mask.alpha


def test_masks_survive_storage():
    before = masks_of(torch.randn(12, 20, generator=torch.Generator().manual_seed(0)))
    after = Mask.several_from(Mask.several_to(before))
    assert [(m.name, m.alpha, m.rank, m.members.share) for m in after] == [
        (m.name, m.alpha, m.rank, m.members.share) for m in before
    ]
    for a, b in zip(after, before, strict=True):
        for part in ("inside", "tied"):
            mine, theirs = getattr(a.members, part), getattr(b.members, part)
            assert torch.equal(mine.to_bool(), theirs.to_bool())
    assert Mask.several_from(Mask.several_to(())) == ()
    alone = before[0].tensors()
    assert {name: tensor.dtype for name, tensor in alone.items()} == {
        "inside": torch.uint8, "tied": torch.uint8, "facts": torch.float64,
    }  # fmt: skip
    assert Mask.from_tensors(alone).members.inside.count() == before[0].members.inside.count()


def test_masks_need_no_alpha_and_overlaps_need_bits():
    assert masks_of(torch.ones(4, 4), ()) == ()
    with pytest.raises(ValueError, match="which weights changed"):
        rows(masks_of(torch.ones(4, 4)), Changes(None, 1, 16), "bf16")


def test_missing_rows_are_the_rows_of_the_masks_without_values():
    found = missing((16, 24), (0.3, 0.5), "bf16", "W_t has 3 non-finite weights")
    there = rows(masks_of(torch.ones(16, 24)), where(torch.ones(16, 24, dtype=torch.bool)), "bf16")
    assert [tuple(row) for row in found] == [tuple(row) for row in there]
    for lost, row in zip(found, there, strict=True):
        assert lost == {**row, "overlap": None, "density": None, "reason": "W_t has 3 non-finite weights"}


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
