"""Leading singular triplets of E [m, n], m <= n, in float64 from approximate ones: one Rayleigh-Ritz step on E itself.

    Y orthonormal [m, b] f32     near = orth(Y),  H = near' E E' near = W diag(squares) W',  near <- near W
    residual_i                   ||E E' y_i - squares_i y_i||_2, in float64 from E, so no Gram matrix' rounding is in it

Bound on a cut k, where X2 are the eigenvectors of E E' past its first k, Lambda_2 their eigenvalues, and R the first k
residual vectors: X2' R = Lambda_2 X2' Y - X2' Y Theta gives ||X2' Y||_F <= ||R||_F / (squares_k - lambda_{k+1}) (Davis
and Kahan). The same holds of orth(E'Y), whose sines are smaller by sigma_{k+1} / sigma_k. lambda_{k+1} is at most

    the spectrum's value with its noise, squared
    squares_{k+1} + rho_w, rho_w = ||R_w||_F, for a width w > k with squares_w above lambda_{w+1} + rho_w: by Weyl, no
                   eigenvalue of E E' compressed to the complement of Y_w reaches squares_w
    max(squares_{k+1}, ||E||_F^2 - sum squares) + rho_b, since that compression's trace bounds its norm

and the least of these is taken.

Source: Davis and Kahan, SIAM J. Numer. Anal. 7 (1970); Parlett, The Symmetric Eigenvalue Problem, 11.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.linalg import vector_norm

from opd_ops.geometry.base import far_product, near_product
from opd_ops.geometry.gram import Spectrum, rounding_bound


@dataclass(frozen=True)
class Refined:
    """near [m, b], far [n, b] orthonormal; squares [b] descending, residuals [b] in squared units; all float64.

    allowance: bound on the float64 rounding error of any eigenvalue of E E'.
    """

    near: Tensor
    far: Tensor
    squares: Tensor
    residuals: Tensor
    allowance: float

    def error(self, k: int, spectrum: Spectrum, size: float) -> float:
        """Bound on the Frobenius norm of the sines of the top k, for each side; at most sqrt(k), the trivial bound.

        spectrum: of E with its noise; size: ||E||_F.
        """
        room = float(self.squares[k - 1]) - self._below(k, spectrum, size) - self.allowance
        return min(k**0.5, self._rho(k) / room) if room > 0 else k**0.5

    def _rho(self, k: int) -> float:
        return float(vector_norm(self.residuals[:k])) + self.allowance * k**0.5

    def _below(self, k: int, spectrum: Spectrum, size: float) -> float:
        """Upper bound on lambda_{k+1}."""
        width = len(self.squares)
        bounds = [spectrum.upper_bound_after(k) ** 2]
        following = float(self.squares[k]) if k < width else 0.0
        rest = size**2 - float(self.squares.sum()) + self.allowance
        bounds.append(max(following, rest) + self._rho(width))
        for w in range(width, k, -1):
            if float(self.squares[w - 1]) > spectrum.upper_bound_after(w) ** 2 + self._rho(w):
                bounds.append(following + self._rho(w))
                break
        return min(bounds)


def refine_basis(e: Tensor, approximate: Tensor) -> Refined:
    """e [m, n] f32, m <= n; approximate [m, b], b >= 1 leading left singular vectors, best first."""
    near = torch.linalg.qr(approximate.double()).Q
    far = far_product(e, near)
    image = near_product(e, far)
    compressed = near.T @ image
    squares, rotation = torch.linalg.eigh((compressed + compressed.T) / 2)
    squares, rotation = squares.flip(0).clamp(min=0.0), rotation.flip(1)
    near, image = near @ rotation, image @ rotation
    residuals = vector_norm(image - near * squares, dim=0)
    allowance = rounding_bound(len(e), e.shape[1], torch.float64) * float(squares[0])
    return Refined(near, torch.linalg.qr(far @ rotation).Q, squares, residuals, allowance)
