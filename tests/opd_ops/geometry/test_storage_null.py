"""What bf16 storage does to a trajectory that never turns: the null that every trajectory claim is read against."""

import pytest
import torch

from opd_ops.geometry.suite import Settings, measure_matrix

SIZE = 192
SHARES = (0.1, 0.2, 0.4, 0.6, 1.0)


@pytest.fixture(scope="module")
def found():
    """W0 ~ N(0, 0.02^2) in bf16, W_t = W0 + s D in fp32, D a fixed power-law rank-24 direction with iid noise."""
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=generator)
    base = (0.02 * draw(SIZE, SIZE)).bfloat16().float()
    u, v = torch.linalg.qr(draw(SIZE, 24)).Q, torch.linalg.qr(draw(SIZE, 24)).Q
    direction = (u * torch.arange(1.0, 25.0) ** -0.5) @ v.T
    direction = direction / direction.std() + 0.3 * draw(SIZE, SIZE)
    snapshots = [(t + 1, base + share * 5e-5 * direction) for t, share in enumerate(SHARES)]
    return measure_matrix(base, snapshots, settings=Settings(k=(16,), hill_k=(32,)), projection=True).rows


def series(rows, column, view, **where):
    picked = [row for row in rows if row["view"] == view and all(row[key] == value for key, value in where.items())]
    return [row[column] for row in picked]


def test_stable_rank_falls_in_bf16_and_is_constant_in_master(found):
    stored = series(found["update_norm"], "stable_rank", "bf16")
    assert stored == sorted(stored, reverse=True)
    assert stored[0] > 1.5 * stored[-1]
    master = series(found["update_norm"], "stable_rank", "master")
    # fp32 storage of W0 + s D leaves 1e-9 / 5e-6 relative noise at the smallest s.
    assert master == pytest.approx([master[-1]] * len(SHARES), rel=1e-3)


def test_similarity_to_the_end_rises_in_bf16_and_is_one_in_master(found):
    last = len(SHARES)
    stored = series(found["locking"], "similarity", "bf16", side="input", step_other=last)
    assert stored == sorted(stored)
    assert stored[0] < 0.6
    master = series(found["locking"], "similarity", "master", side="input", step_other=last)
    assert master == pytest.approx([1.0] * len(master), abs=1e-3)


def test_hill_falls_in_bf16_and_is_constant_in_master(found):
    stored = series(found["hill"], "hill", "bf16", k=32)
    assert stored[0] > stored[-1]
    master = series(found["hill"], "hill", "master", k=32)
    assert master == pytest.approx([master[-1]] * len(SHARES), rel=1e-2)


def test_support_grows_as_the_update_clears_the_grid(found):
    unchanged = series(found["update_support"], "unchanged", "bf16")
    assert unchanged == sorted(unchanged, reverse=True)
    assert unchanged[0] > 0.8
    assert unchanged[-1] < 0.8
