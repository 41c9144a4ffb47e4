"""The matrix products of a call, run by themselves: CPU seconds that its other work comes on top of.

Attention's own products are inside its kernel and are not counted.
"""

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

Operand = tuple[tuple[int, ...], bool]  # shape [rows, columns], and whether it lies transposed
Product = tuple[Operand, Operand]


def products(call: Callable[[], object]) -> Counter[Product]:
    """How often `call` multiplies matrices of these shapes: mm, addmm and linear."""
    with _Recorder() as recorder:
        call()
    return recorder.found


def seconds(found: Counter[Product]) -> float:
    """CPU seconds of these products of random fp32 matrices, into memory that is there."""
    spent = 0.0
    for (left, right), count in found.items():
        a, b = _drawn(left), _drawn(right)
        out = torch.mm(a, b)
        begun = time.process_time()
        for _ in range(count):
            torch.mm(a, b, out=out)
        spent += time.process_time() - begun
    return spent


class _Recorder(TorchDispatchMode):
    """Notes the products that pass, forward and backward."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[Product] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.mm.default:
            self.found[_laid(args[0]), _laid(args[1])] += 1
        elif func is torch.ops.aten.addmm.default:
            self.found[_laid(args[1]), _laid(args[2])] += 1
        elif func is torch.ops.aten.linear.default:
            self.found[_laid(args[0].flatten(0, -2)), _laid(args[1].t())] += 1
        return func(*args, **(kwargs or {}))


def _laid(x: Tensor) -> Operand:
    return tuple(x.shape), x.stride(0) == 1 and x.stride(1) != 1


def _drawn(operand: Operand) -> Tensor:
    (rows, columns), transposed = operand
    return torch.rand(columns, rows).t() if transposed else torch.rand(rows, columns)
