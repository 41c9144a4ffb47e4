"""Scales matrices by powers of two to near 1, so that squares and fourth powers stay in a dtype's range.

    exponent(x) = e with 2^(e-1) <= x < 2^e        unit = 2^e        A = unit * (A / unit)

A matrix whose size lies between 1 / limit and limit is not scaled (exponent 0). Outside, f32 products of two such
matrices underflow or overflow, and squares of these products sooner. Scaling by a power of two changes no digit of a
value that stays normal; entries that underflow are 2^-126 of the largest, below every error bound here. Norms of f32
products are summed in float64, since their squares are fourth powers.
Source: LAPACK's eigenvalue drivers scale their input for the same reason.
"""

import math

import torch
from torch import Tensor
from torch.linalg import vector_norm

LIMIT = 2.0**24  # of an update's largest entry: leaves a factor of 2^48 to f32's range for squared Gram entries


class OutOfRange(ArithmeticError):
    """Weights whose scales f32 cannot represent together; float64 can."""


def largest(x: Tensor) -> float:
    """max |x_ij|, 0 for no entries."""
    return max((float(vector_norm(rows, math.inf)) for rows in x.split(256)), default=0.0)


def exponent(size: float, limit: float = LIMIT) -> int:
    """The exponent of the unit for a matrix of this size; 0 if it needs no scaling."""
    return 0 if size == 0.0 or 1 / limit <= size <= limit else math.frexp(size)[1]


def unit(power: int) -> float:
    """2^power, a float64, subnormal below -1022."""
    return math.ldexp(1.0, power)


def multiply(x: Tensor, power: int) -> Tensor:
    """x * 2^power in x's dtype; x itself where power is 0. In two steps, since 2^power may leave the dtype's range."""
    if power == 0:
        return x
    half = power // 2
    return (x * unit(half)) * unit(power - half)


def frobenius(x: Tensor) -> float:
    """||x||_F, accumulated in float64, for finite x [m, ...] of any float dtype and scale."""
    power = exponent(largest(x)) if x.dtype == torch.float64 else 0
    wide = (multiply(rows, -power).to(torch.float64).reshape(-1) for rows in x.split(32))
    return unit(power) * sum(float(torch.dot(entries, entries)) for entries in wide) ** 0.5
