"""The matrices a model is made of: Hugging Face names with [out, in] shapes, in the order of the model."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from opd_ops.roles import PROJECTIONS


@dataclass(frozen=True)
class Shape:
    """One matrix: its Hugging Face name and its extents."""

    name: str
    m: int
    n: int

    @property
    def numel(self) -> int:
        return self.m * self.n

    @property
    def extents(self) -> tuple[int, int]:
        return self.m, self.n


@dataclass(frozen=True, kw_only=True)
class Extents:
    """hidden: columns of q; heads: rows of q; kv: rows of k and v; mlp: rows of gate and up."""

    hidden: int
    heads: int
    kv: int
    mlp: int

    def layer(self, index: int, roles: Sequence[str] = PROJECTIONS) -> list[Shape]:
        """Projections of decoder layer `index`."""
        attention = {
            "q": (self.heads, self.hidden),
            "k": (self.kv, self.hidden),
            "v": (self.kv, self.hidden),
            "o": (self.hidden, self.heads),
        }
        mlp = {"gate": (self.mlp, self.hidden), "up": (self.mlp, self.hidden), "down": (self.hidden, self.mlp)}
        prefix = f"model.layers.{index}"
        names = {role: f"{prefix}.{'self_attn' if role in attention else 'mlp'}.{role}_proj.weight" for role in roles}
        return [Shape(name, *(attention | mlp)[role]) for role, name in names.items()]

    def decoder(self, layers: int) -> list[Shape]:
        """All projections of a model with equal layers."""
        return [shape for index in range(layers) for shape in self.layer(index)]


def qwen_like(hidden: int = 2048) -> list[Shape]:
    """Ten matrices of a Qwen-like model, one layer and three of the next: 69,206,016 weights at hidden 2048."""
    extents = Extents(hidden=hidden, heads=hidden, kv=hidden // 2, mlp=3 * hidden)
    return extents.layer(0) + extents.layer(1, ("q", "v", "gate"))


def qwen3_8b() -> list[Shape]:
    """The projections of Qwen3-8B: 252 matrices in 36 layers, 6,945,767,424 weights."""
    return Extents(hidden=4096, heads=4096, kv=1024, mlp=12288).decoder(36)


def counted(shapes: Sequence[Shape]) -> list[tuple[Shape, int]]:
    """One matrix of each shape, the first of the model, with the number of its shape; m x n and n x m are one shape."""
    counts = Counter(tuple(sorted(shape.extents)) for shape in shapes)
    first = {tuple(sorted(shape.extents)): shape for shape in reversed(shapes)}
    return [(shape, counts[extents]) for extents, shape in first.items()]
