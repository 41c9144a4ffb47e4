"""Weights on which linear algebra goes wrong: a start W0 of some structure, updates of some kind, any scale and dtype.

Regime and number name a case. Regimes: `dense` (sides 1 to 90, float64 factors), `lowered` (sides 228 to 330, the
certified route with its threshold lowered to 64), `certified` (sides 514 to 600, where that route is the real one).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

REGIMES = ("dense", "lowered", "certified")
CUTS = {"dense": (1, 3, 8), "lowered": (1, 4), "certified": (1, 4, 16)}
# Stored dtypes of W0 and of W_t, and the powers of ten of weights that both hold.
DTYPES = {
    "bf16": (torch.bfloat16, torch.bfloat16, -39, 37),
    "fp32": (torch.float32, torch.float32, -39, 37),
    "bf16-fp32": (torch.bfloat16, torch.float32, -39, 37),
    "fp32-bf16": (torch.float32, torch.bfloat16, -39, 37),
    "fp16": (torch.float16, torch.float16, -6, 3),
    "fp16-fp32": (torch.float16, torch.float32, -6, 3),
    "fp64": (torch.float64, torch.float64, -290, 37),
}


@dataclass(frozen=True)
class Case:
    """w0 and the snapshots [out, in] as stored. label: what it is made of, for a message."""

    regime: str
    number: int
    label: str
    w0: Tensor
    snapshots: tuple[Tensor, ...]
    cuts: tuple[int, ...]


class Draw:
    """Random numbers of one case."""

    def __init__(self, regime: str, number: int) -> None:
        seed = REGIMES.index(regime) * 1_000_003 + number
        self.generator = torch.Generator().manual_seed(seed)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator, dtype=torch.float64)

    def integer(self, low: int, high: int) -> int:
        """low..high, both possible."""
        return int(torch.randint(low, high + 1, (1,), generator=self.generator))

    def uniform(self, low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand(1, generator=self.generator, dtype=torch.float64))

    def choice(self, options):
        return options[self.integer(0, len(options) - 1)]

    def order(self, n: int) -> Tensor:
        return torch.randperm(n, generator=self.generator)

    def basis(self, n: int, k: int) -> Tensor:
        return torch.linalg.qr(self.normal(n, k)).Q


def diagonal(values: Tensor, m: int, n: int) -> Tensor:
    w = torch.zeros(m, n, dtype=torch.float64)
    w.diagonal().copy_(values)
    return w


def powers(draw: Draw, r: int) -> Tensor:
    return torch.arange(1, r + 1, dtype=torch.float64) ** -draw.uniform(0.2, 2.0)


def spectral(draw: Draw, s: Tensor, m: int, n: int) -> Tensor:
    return (draw.basis(m, len(s)) * s) @ draw.basis(n, len(s)).T


def block(draw: Draw, m: int, n: int) -> Tensor:
    w, a, b = torch.zeros(m, n, dtype=torch.float64), m // 2, n // 3
    w[:a, :b], w[a:, b:] = draw.normal(a, b), 0.3 * draw.normal(m - a, n - b)
    return w


def banded(draw: Draw, m: int, n: int) -> Tensor:
    w = draw.normal(m, n)
    return torch.tril(torch.triu(w, -draw.integer(0, 3)), draw.integer(0, 3))


def sparse(draw: Draw, m: int, n: int) -> Tensor:
    return draw.normal(m, n) * (torch.rand(m, n, generator=draw.generator) < draw.choice((0.002, 0.01, 0.1)))


def low_rank_and_outliers(draw: Draw, m: int, n: int) -> Tensor:
    rank = min(m, n, draw.integer(1, 12))
    w = draw.normal(m, rank) @ draw.normal(rank, n) + 1e-3 * draw.normal(m, n)
    for _ in range(3):
        w[draw.integer(0, m - 1), draw.integer(0, n - 1)] *= 100
    return w


def permuted_diagonal(draw: Draw, m: int, n: int) -> Tensor:
    return diagonal(powers(draw, min(m, n)), m, n)[draw.order(m)][:, draw.order(n)]


def outlying_diagonal(draw: Draw, m: int, n: int) -> Tensor:
    """Leading directions along axes over a dense rest."""
    some = min(m, n, draw.integer(1, 100))
    w = 1e-3 * draw.normal(m, n)
    w.diagonal()[:some] += torch.linspace(4.0, 1.0, some, dtype=torch.float64)
    return w


def clustered(draw: Draw, m: int, n: int) -> Tensor:
    """sigma_1 = 1 and the rest within a relative 1e-6 of each other in groups, so that cuts fall inside groups."""
    r = min(m, n)
    groups = torch.arange(r) // draw.integer(2, 9)
    return spectral(draw, 0.9**groups * (1 + 1e-6 * draw.normal(r).abs()), m, n)


def identical_columns(draw: Draw, m: int, n: int) -> Tensor:
    w = draw.normal(m, n)
    w[:, n // 2 :] = w[:, :1]
    return w


STARTS: dict[str, Callable[[Draw, int, int], Tensor]] = {
    "random": lambda draw, m, n: draw.normal(m, n),
    "heavy": lambda draw, m, n: spectral(draw, powers(draw, min(m, n)), m, n),
    "diagonal": lambda draw, m, n: diagonal(draw.normal(min(m, n)), m, n),
    "graded": lambda draw, m, n: diagonal(powers(draw, min(m, n)), m, n),
    "steep": lambda draw, m, n: diagonal(10.0 ** -torch.linspace(0, draw.uniform(2, 12), min(m, n)).double(), m, n),
    "permuted": permuted_diagonal,
    "identity": lambda draw, m, n: torch.eye(m, n, dtype=torch.float64),
    "block": block,
    "banded": banded,
    "sparse": sparse,
    "outliers": low_rank_and_outliers,
    "outlying": outlying_diagonal,
    "columns": identical_columns,
    "deficient": lambda draw, m, n: draw.normal(m, min(m, n, 5)) @ draw.normal(min(m, n, 5), n),
    "clustered": clustered,
    "orthogonal": lambda draw, m, n: spectral(draw, torch.ones(min(m, n), dtype=torch.float64), m, n),
    "constant": lambda draw, m, n: torch.full((m, n), draw.normal(1).item(), dtype=torch.float64),
    "zero": lambda draw, m, n: torch.zeros(m, n, dtype=torch.float64),
    "padded": lambda draw, m, n: torch.nn.functional.pad(draw.normal(m - m // 3, n), (0, 0, 0, m // 3)),
}


def moved_entries(draw: Draw, w: Tensor) -> Tensor:
    """A few entries anywhere, by a thousandth of the largest or by as much as that is."""
    moved, size = w.clone(), float(w.abs().max()) or 1.0
    for _ in range(draw.choice((1, 2, 3, 40))):
        i, j = draw.integer(0, len(w) - 1), draw.integer(0, w.shape[1] - 1)
        moved[i, j] += size * draw.choice((1e-6, 1e-3, -1e-3, 1e-2, 1.0)) * draw.uniform(0.5, 2.0)
    return moved


def leading_entry(draw: Draw, w: Tensor) -> Tensor:
    """The largest entry by a hundredth, and one elsewhere."""
    moved, place = w.clone(), int(w.abs().argmax())
    moved.view(-1)[place] *= 1.01
    return moved_entries(draw, moved)


def low_rank(draw: Draw, w: Tensor) -> Tensor:
    rank = min(*w.shape, draw.integer(1, 20))
    e = draw.normal(len(w), rank) @ draw.normal(rank, w.shape[1])
    return w + relative(draw, w, e)


def relative(draw: Draw, w: Tensor, e: Tensor) -> Tensor:
    """e of a norm 10^-7 to 1 times that of w, or of 1 where w is zero."""
    return e * (float(w.norm()) or 1.0) / float(e.norm().clamp(min=1e-300)) * 10 ** draw.uniform(-7, 0)


def swapped(draw: Draw, w: Tensor) -> Tensor:
    """Two leading singular directions exchanged, or one turned a little."""
    u, s, vt = torch.linalg.svd(w, full_matrices=False)
    if len(s) < 2:
        return -w
    j = draw.integer(1, min(len(s) - 1, 12))
    turned = s.clone()
    turned[0], turned[j] = s[j], s[0]
    return (u * turned) @ vt


def without_leading(draw: Draw, w: Tensor) -> Tensor:
    u, s, vt = torch.linalg.svd(w, full_matrices=False)
    gone = s.clone()
    gone[draw.integer(0, min(len(s) - 1, 5))] = 0.0
    return (u * gone) @ vt


def one_ulp(draw: Draw, w: Tensor) -> Tensor:
    """One entry by the least step of f32."""
    moved = w.float().clone()
    place = draw.integer(0, moved.numel() - 1)
    flat = moved.view(-1)
    flat[place] = torch.nextafter(flat[place], torch.tensor(math.inf))
    return moved.double()


UPDATES: dict[str, Callable[[Draw, Tensor], Tensor]] = {
    "entries": moved_entries,
    "leading": leading_entry,
    "ulp": one_ulp,
    "low_rank": low_rank,
    "dense": lambda draw, w: w + relative(draw, w, draw.normal(*w.shape)),
    "scaled": lambda draw, w: w * draw.choice((1.5, 1.01, 1e-3, 30.0)),
    "negative": lambda draw, w: -w,
    "rows": lambda draw, w: w[draw.order(len(w))],
    "columns": lambda draw, w: w[:, draw.order(w.shape[1])],
    "swapped": swapped,
    "without": without_leading,
    "new": lambda draw, w: draw.normal(*w.shape) * (float(w.abs().max()) or 1.0),
    "none": lambda draw, w: w.clone(),
    "gone": lambda draw, w: 0 * w,
    "row": lambda draw, w: torch.cat([w[:1] * 1.1, w[1:]]),
    "tiny": lambda draw, w: torch.where(w == 0, 10.0 ** -draw.uniform(5, 40) * draw.normal(*w.shape), w),
}


def sides(draw: Draw, regime: str) -> tuple[int, int]:
    """[out, in]; one in four is three times as tall or wide."""
    low, high = {"dense": (1, 90), "lowered": (228, 330), "certified": (514, 600)}[regime]
    m, n = draw.integer(low, high), draw.integer(low, high)
    return draw.choice(((m, n), (m, n), (m, n), (m, n), (m, n), (m, n), (3 * m, n), (m, 3 * n)))


def stored(w: Tensor, scale: float, dtype: torch.dtype) -> Tensor:
    """w of largest entry 1 at a scale, in a dtype that cannot overflow by it."""
    largest = torch.finfo(torch.bfloat16 if dtype == torch.float64 else dtype).max
    return (w * scale).clamp(-0.4 * largest, 0.4 * largest).to(dtype)


def case(regime: str, number: int) -> Case:
    """Structures go round by number, and kinds of updates by round; all else is drawn."""
    draw = Draw(regime, number)
    names, kinds = list(STARTS), list(UPDATES)
    start, kind = names[number % len(names)], kinds[(number // len(names) + number % len(names)) % len(kinds)]
    m, n = sides(draw, regime)
    w = STARTS[start](draw, m, n)
    w = w / (float(w.abs().max()) or 1.0)
    dtypes = draw.choice(("fp32", "fp32", "bf16", *DTYPES))
    before, after, low, high = DTYPES[dtypes]
    near = draw.integer(max(low, -14), min(high, 14))  # squares of squares leave f32 sooner than squares
    power = draw.choice((0, 0, near, draw.integer(low, high), draw.integer(low, high)))
    scale = 10.0**power
    w0 = stored(w, scale, before)
    exact = w0.double() / scale
    second = draw.choice(kinds)
    snapshots = tuple(stored(UPDATES[name](draw, exact), scale, after) for name in (kind, second))
    label = f"{regime} {number}: {start} {m}x{n}, {kind} then {second}, {dtypes}, 1e{power}"
    return Case(regime, number, label, w0, snapshots, CUTS[regime])
