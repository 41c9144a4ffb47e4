"""Leading eigenpairs of a symmetric positive operator by block Lanczos, and upper bounds on its norm.

    basis_j = orth [X, A X, ..., A^(j-1) X],   Ritz pairs of A in it,   residual_i = ||A y_i - theta_i y_i||

Failure probability of a random start: from one Gaussian vector, P(lambda_1 - theta > eps lambda_1) <=
1.648 sqrt(n) exp(-sqrt(eps) (2 j - 1)). The block space contains the Krylov space of each vector, and the vectors are
independent, so the probabilities multiply. A cheaper bound needs no convergence: for Gaussian G [n, b],
||A^p G||_F^2 >= lambda_1^(2p) chi^2_b, whose quantile is known. Not measured: eigenvalues past the first k.
Source: Kuczynski and Wozniakowski, SIAM J. Matrix Anal. Appl. 13 (1992), theorem 3.2.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.linalg import vector_norm

MISS = 1e-10  # probability that an upper bound on the norm is too small
BLOCK = 16
STEPS = 6
POWER = 2


@dataclass(frozen=True)
class Leading:
    """values [k] descending (float64), vectors [n, k] f32, residuals [k] float64, dimension of the Krylov space."""

    values: Tensor
    vectors: Tensor
    residuals: Tensor
    dimension: int


def leading_eigenpairs(
    multiply: Callable[[Tensor], Tensor],
    size: int,
    k: int,
    *,
    device: str | torch.device = "cpu",
    block: int = BLOCK,
    enough: Callable[[Leading], bool],
    first: int = STEPS,
    most: int = 48,
    seed: int = 0,
) -> Leading:
    """The k leading eigenpairs of A, given x -> A x on f32 blocks; k <= block <= size.

    enough(leading) is called after `first` steps and then after every quarter more. The iteration ends when it returns
    True, after `most` steps, or when the basis spans the whole space. seed and size determine the random start.
    """
    generator = torch.Generator().manual_seed(size + seed)
    q = torch.linalg.qr(torch.randn(size, min(block, size), generator=generator).to(device)).Q
    basis, images = q, multiply(q)
    last = images
    step, check = 1, first
    while True:
        left = size - basis.shape[1]
        full = left == 0
        if step >= check or step >= most or full:
            leading = _ritz(basis, images, k)
            if step >= most or full or enough(leading):
                return leading
            check += max(2, check // 4)
        for _ in range(2):
            last = last - basis @ (basis.T @ last)
        q = torch.linalg.qr(last[:, :left]).Q
        # In an exhausted space QR returns arbitrary columns; they must still be orthogonal to the basis.
        q = torch.linalg.qr(q - basis @ (basis.T @ q)).Q
        last = multiply(q)
        basis, images = torch.cat([basis, q], 1), torch.cat([images, last], 1)
        step += 1


def norm_bound(
    multiply: Callable[[Tensor], Tensor], size: int, device: str | torch.device = "cpu", seed: int = 0
) -> float:
    """Upper bound on lambda_1 with failure probability MISS, from two products with BLOCK random vectors.

    Infinite if f32 overflows. The probability is over seeds: use a seed that is independent of the operator.
    """
    from scipy import special  # imported here, so that an importer can still set the number of BLAS threads

    generator = torch.Generator().manual_seed(size + 1 + seed)
    block = torch.randn(size, BLOCK, generator=generator).to(device)
    scale = 1.0
    for _ in range(POWER):
        block = multiply(block)
        norm = float(vector_norm(block, dtype=torch.float64))
        if norm == 0.0 or not math.isfinite(norm):
            return norm if norm == 0.0 else math.inf
        block, scale = (block.double() / norm).float(), scale * norm
    chi = 2.0 * float(special.gammaincinv(BLOCK / 2, MISS))
    return (scale / chi**0.5) ** (1.0 / POWER)


def steps_for(size: int, miss: float) -> int:
    """Steps from one random vector after which `miss_bound` is at most `miss`."""
    return math.ceil((math.log(1.648 * size**0.5 / MISS) / miss**0.5 + 1) / 2)


def miss_bound(size: int, block: int, steps: int) -> float:
    """The smallest eps for which P(theta_1 < (1 - eps) lambda_1) <= MISS is guaranteed; at most 1."""
    probability = MISS ** (1.0 / block)
    return min(1.0, (math.log(1.648 * size**0.5 / probability) / (2 * steps - 1)) ** 2)


def _ritz(basis: Tensor, images: Tensor, k: int) -> Leading:
    compressed = (basis.T @ images).double()
    values, vectors = torch.linalg.eigh((compressed + compressed.T) / 2)
    values, vectors = values[-k:].flip(0), vectors[:, -k:].flip(1).float()
    ritz = basis @ vectors
    residuals = vector_norm(images @ vectors - ritz * values.float(), dim=0, dtype=torch.float64)
    return Leading(values.clamp(min=0.0), ritz, residuals, basis.shape[1])
