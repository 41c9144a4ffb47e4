import math

import pytest
import torch

from opd_ops.geometry import nulls
from opd_ops.geometry.nulls import fixed_direction, iid_stable_rank, rounding_norm, shuffle_entries

STORAGE = [torch.bfloat16, torch.float16, torch.float32]


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def stable_rank(delta):
    s = torch.linalg.svdvals(delta.double())
    return float((s / s[0]).square().sum())


def hill(delta, k):
    s = torch.linalg.svdvals(delta.double())[:k]
    return 1.0 / float((s[:-1] / s[-1]).log().mean())


def similarity(a, b, k):
    bases = [torch.linalg.svd(delta.double()).Vh[:k] for delta in (a, b)]
    return float((bases[0] @ bases[1].T).square().sum() / k)


# Fixed direction


@pytest.fixture(scope="module")
def never_turns():
    """W0 ~ N(0, 0.02^2) in bf16, D power-law of rank 24 with iid noise; the null at five norms, the last changing 60 %
    of the weights."""
    size = 192
    base = (0.02 * draw(size, size)).bfloat16().float()
    u, v = (torch.linalg.qr(draw(size, 24, seed=seed)).Q for seed in (1, 2))
    direction = (u * torch.arange(1.0, 25.0) ** -0.5) @ v.T
    direction = direction / direction.std() + 0.3 * draw(size, size, seed=3)
    final = 5e-5 * direction / direction.std()
    norms = [share * float(final.norm()) for share in (0.1, 0.2, 0.4, 0.6, 1.0)]
    return base, final, norms, [fixed_direction(base, final, norm) for norm in norms]


def test_a_fixed_direction_imitates_a_trajectory_in_bf16(never_turns):
    _, _, _, found = never_turns
    ranks = [stable_rank(delta) for delta in found]
    tails = [hill(delta, 32) for delta in found]
    locked = [similarity(delta, found[-1], 16) for delta in found]
    density = [float((delta != 0).float().mean()) for delta in found]
    assert ranks == sorted(ranks, reverse=True)
    assert ranks[0] > 1.5 * ranks[-1]
    assert tails == sorted(tails, reverse=True)
    assert locked == sorted(locked)
    assert locked[0] < 0.6
    assert locked[-1] == pytest.approx(1.0, abs=1e-9)
    assert density == sorted(density)
    assert density[0] < 0.2 < 0.4 < density[-1] < 0.7


def test_a_fixed_direction_is_what_bf16_keeps_of_the_rescaled_update(never_turns):
    base, final, norms, found = never_turns
    for norm, delta in zip(norms, found, strict=True):
        scaled = base.double() + final.double() * norm / float(final.double().norm())
        expected = scaled.float().bfloat16().double() - base.double()
        # Sums are f32: within 2^-24 of a bf16 midpoint one may round the other way.
        assert int((delta.double() != expected).sum()) <= 3
        assert delta.dtype == torch.float32
        assert torch.equal((base + delta).bfloat16().float(), base + delta)


def test_the_norm_is_the_one_asked_for_where_storage_does_not_bite():
    base, final = torch.zeros(60, 80), draw(60, 80)
    for norm in (1e-6, 0.5, 300.0):
        # Each of 4800 entries is rounded to 8 bits, by 2^-9 of itself at most.
        assert float(fixed_direction(base, final, norm).norm()) == pytest.approx(norm, rel=1e-4)
    assert not fixed_direction(base, final, 0.0).any()


def test_only_the_direction_of_the_final_update_matters():
    base, final = (0.02 * draw(30, 40)).bfloat16().float(), draw(30, 40, seed=1)
    assert torch.equal(fixed_direction(base, final, 0.1), fixed_direction(base, 2.0**-20 * final, 0.1))


def test_the_arguments_stay_as_they_were(monkeypatch):
    monkeypatch.setattr(nulls, "CHUNK", 50)
    base, final = (0.02 * draw(30, 40)).bfloat16().float(), draw(30, 40, seed=1)
    kept = base.clone(), final.clone()
    first, _ = fixed_direction(base, final, 0.1), shuffle_entries(final, 0)
    assert torch.equal(base, kept[0])
    assert torch.equal(final, kept[1])
    monkeypatch.undo()
    assert torch.equal(first, fixed_direction(base, final, 0.1))


def test_a_zero_update_has_no_direction():
    with pytest.raises(ValueError, match="no direction"):
        fixed_direction(torch.ones(3, 3), torch.zeros(3, 3), 1.0)


# Shuffling

SHAPES = [(64, 96), (63, 97), (400, 12), (7, 301), (1, 50), (1, 1)]


@pytest.fixture
def small_buckets(monkeypatch):
    """Many buckets of a few chunks each, as a large matrix has."""
    monkeypatch.setattr(nulls, "CHUNK", 50)
    monkeypatch.setattr(nulls, "BUCKET", 60)


@pytest.mark.parametrize("shape", SHAPES)
def test_shuffling_keeps_every_entry_once(shape, small_buckets):
    delta = torch.arange(float(math.prod(shape))).reshape(shape)
    found = shuffle_entries(delta, 0)
    assert found.shape == delta.shape
    assert found.dtype == torch.float32
    assert torch.equal(found.flatten().sort().values, delta.flatten())
    assert delta.numel() == 1 or not torch.equal(found, delta)


def test_the_order_depends_on_the_seed_and_the_size_alone(small_buckets):
    delta = torch.arange(600.0).reshape(20, 30)
    order = shuffle_entries(delta, 5)
    assert torch.equal(shuffle_entries(delta, 5), order)
    assert not torch.equal(shuffle_entries(delta, 6), order)
    values = draw(30, 20)
    assert torch.equal(shuffle_entries(values, 5).flatten(), values.flatten()[order.flatten().long()])


def test_every_entry_goes_everywhere(small_buckets):
    """Where the first entry lands over 600 seeds: uniform over 120 places, by a chi-square test at 1e-6."""
    delta = torch.zeros(120)
    delta[0] = 1.0
    landed = torch.stack([shuffle_entries(delta, seed) for seed in range(600)]).sum(0)
    assert float(((landed - 5.0) ** 2 / 5.0).sum()) < 210.0


@pytest.mark.parametrize("shape", [(128, 192), (127, 193), (600, 48), (1, 500)])
def test_shuffling_leaves_the_stable_rank_of_an_exact_random_order(shape, small_buckets):
    """A rank-1 part and rows of very different sizes, which survive any shuffle that keeps some of the order."""
    m, n = shape
    rows = torch.logspace(0, -1, m)[:, None]
    delta = rows * torch.linspace(0.2, -0.2, n) + rows * draw(m, n, seed=1)
    # Without their mean, which no order of the entries removes.
    delta = delta - delta.mean()
    order = lambda seed: torch.randperm(m * n, generator=torch.Generator().manual_seed(seed))
    exact = sum(stable_rank(delta.flatten()[order(seed)].view(m, n)) for seed in range(8)) / 8
    found = sum(stable_rank(shuffle_entries(delta, seed)) for seed in range(8)) / 8
    # One order scatters by 3 %, the mean of eight by 1 %.
    assert found == pytest.approx(exact, rel=0.04)
    assert m == 1 or stable_rank(delta) < 0.8 * exact


# Floors


def test_iid_stable_rank_is_what_noise_shows():
    assert iid_stable_rank(4096, 4096) == 1024.0
    assert iid_stable_rank(1024, 4096) == pytest.approx(455.1, abs=0.1)
    assert iid_stable_rank(40, 90) == iid_stable_rank(90, 40)
    # The largest singular value is off by about n^(-2/3) of itself.
    assert stable_rank(draw(300, 500)) == pytest.approx(iid_stable_rank(300, 500), rel=0.05)


def ulp_by_frexp(w, storage):
    grid = torch.finfo(storage)
    power = torch.frexp(w.abs().clamp(min=grid.smallest_normal)).exponent - 1
    ulp = torch.ldexp(torch.full_like(w, grid.eps), power).where(w != 0.0, 0.0)
    return float(torch.linalg.vector_norm(ulp) / 12.0**0.5)


@pytest.mark.parametrize("given", [torch.float32, torch.float64])
@pytest.mark.parametrize("storage", STORAGE)
def test_rounding_norm_is_the_spacing_above_every_value(storage, given, monkeypatch):
    monkeypatch.setattr(nulls, "CHUNK", 70)
    exponents = torch.randint(-4, 4, (400,), generator=torch.Generator().manual_seed(1))
    values = (draw(400) * 10.0**exponents).to(storage)
    values = values[values != 0]
    infinity = torch.tensor(float("inf"), dtype=storage)
    spacing = (torch.nextafter(values.abs(), infinity).double() - values.abs().double()).square().sum()
    # Sums of powers of four in another order: exact up to summation.
    found = rounding_norm(values.to(given), storage)
    assert found == pytest.approx(math.sqrt(float(spacing) / 12), rel=1e-12)
    assert found == pytest.approx(ulp_by_frexp(values.double(), storage), rel=1e-12)


@pytest.mark.parametrize("storage", [*STORAGE, torch.float64])
def test_rounding_norm_of_subnormals_and_zeros(storage):
    grid = torch.finfo(storage)
    spacing = grid.eps * grid.smallest_normal
    given = torch.float64 if storage == torch.float64 else torch.float32
    for value in (spacing, grid.smallest_normal / 2, grid.smallest_normal):
        found = rounding_norm(torch.tensor([value, 0.0, -0.0], dtype=given), storage)
        assert found == pytest.approx(math.sqrt(spacing**2 / 12), rel=1e-12)
    assert rounding_norm(torch.zeros(3), storage) == 0.0


def test_rounding_norm_predicts_the_noise_of_storage():
    values = draw(300, 300)
    noise = (values.to(torch.bfloat16).double() - values).norm()
    # 90 000 nearly uniform errors: the sum of squares is good to 0.3 %.
    assert rounding_norm(values, torch.bfloat16) == pytest.approx(float(noise), rel=0.01)


@pytest.mark.parametrize("size", [1e-42, 1e-30, 1e30])
def test_the_fixed_direction_of_any_scale_has_the_norm_asked_for(size):
    direction = size * torch.ones(8, 9)
    made = fixed_direction(torch.zeros(8, 9), direction, 3.0)
    assert float(made.norm()) == pytest.approx(3.0, rel=1e-2)
