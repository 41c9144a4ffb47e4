"""Weights without a random number generator, and the tables that commit 7416091 made of them (`before.json.gz`).

Made anew with an older checkout before this one on PYTHONPATH: python -m tests.opd_ops.geometry.before OUT.
"""

import gzip
import json
import sys
from pathlib import Path

import torch
from torch import Tensor

from opd_ops.geometry.suite import Measurement, Settings, measure_matrix

TABLES = Path(__file__).with_name("before.json.gz")
SHAPES = {"small": (96, 160), "large": (528, 640), "gap": (640, 544)}
STEPS = (1, 2, 4)


def noise(m: int, n: int, seed: int) -> Tensor:
    """Sums of four uniform 16-bit integers from a hash of the place, centred, of deviation near 1; float64 [m, n]."""
    place = torch.arange(m * n, dtype=torch.int64) + seed * 7_919_317
    total = torch.zeros(m * n, dtype=torch.int64)
    for turn in range(4):
        word = (place * 2_654_435_761 + turn * 40_503_123) & 0xFFFFFFFF
        word = ((word ^ (word >> 15)) * 2_246_822_519) & 0xFFFFFFFF
        total += (word ^ (word >> 13)) & 0xFFFF
    return ((total.double() - 131_070) / 37_837.0).reshape(m, n)


def trajectory(name: str) -> tuple[Tensor, list[tuple[int, Tensor]]]:
    """W0 and snapshots in bf16: a power law over a bulk, moved in four directions and by noise.

    gap: the four are far above the noise.
    """
    m, n = SHAPES[name]
    left, right = noise(m, 12, 1), noise(n, 12, 2)
    scale = torch.arange(1, 13, dtype=torch.float64) ** -0.5
    base = (0.02 * (noise(m, n, 3) + 0.5 * (left * scale) @ right.T)).bfloat16()
    strength = 2.0 if name == "gap" else 0.3
    direction = strength * (noise(m, 4, 4) * torch.tensor([1.0, 0.8, 0.6, 0.5])) @ noise(n, 4, 5).T
    steps = []
    for step in STEPS:
        moved = base.double() + 2e-5 * step * (direction + noise(m, n, 10 + step))
        steps.append((step, moved.bfloat16()))
    return base, steps


def tables(name: str) -> Measurement:
    base, steps = trajectory(name)
    return measure_matrix(base, steps, settings=Settings(k=(4, 16), locking_k=(4, 16)), projection=True)


def stored() -> dict[str, dict[str, list[dict]]]:
    """Rows by table by name."""
    return json.loads(gzip.decompress(TABLES.read_bytes()))


if __name__ == "__main__":
    rows = {name: tables(name).rows for name in SHAPES}
    Path(sys.argv[1]).write_bytes(gzip.compress(json.dumps(rows).encode(), mtime=0))
