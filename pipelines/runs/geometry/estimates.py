"""What measuring will cost, before any of it is done: counts of floating operations, bytes of memory.

A matrix [out, in] has m = min, n = max and Q base triplets for the largest cut k. Operations are counted at the rate of
a large f32 product, which `gemm.choose` measures; what runs slower counts more often: float64 twice, eigvalsh
(4/3 m^3) and thin products three times. Per snapshot and view (two where a snapshot is wider than bf16):

    m > 512 and m > 2 (Q + k + 8)                                        stored in f32, fp16 or bf16
      rotation, singular_shift                    6 m n (2 Q + 8 (k + 8))       with two conjugate gradient steps
      spectral_drift                              2 S                           S = m^2 n + 4 m^3
      update_spectrum, hill, locking              S                             together
      locking, where m > 3072                     L = 50 m (48 * 24)^2          Lanczos on 24 columns, when all 48
                                                                                steps are needed: where no gap is
      update_norm without one of those three      2500 m n
      nulls                                       S + L each                    two in the bf16 view, one in master
      once per base                               2 m^2 n + 14 m^3 + 12 Q m n   where rotation, drift or masks need it
    smaller, or float64                           F = 10 m^2 n + 30 m^3         for each of W0 (once), W_t, E, nulls
    besides                                       60 m n, and 30 m n for what is no projection

Not counted: reading, certificates that need a second attempt, and the startup of workers. Good to a factor of two.
"""

import math
from collections.abc import Collection, Sequence

from pipelines.studies.steps import MOST

EXACT, EXTRA, GUARD = 512, 8, 1  # as in opd_ops.geometry.base, whose import loads torch
TRIDIAGONAL = 3072  # as in opd_ops.geometry.update
KRYLOV = 48 * 24  # largest basis of block Lanczos for the default cut of locking
MASTER = ("F16", "F32", "F64")  # dtypes, by safetensors' names, that have a view besides bf16
ROTATION = frozenset(("rotation", "singular_shift"))
SPECTRA = frozenset(("update_spectrum", "hill", "locking"))
TUNED = ROTATION | {"spectral_drift"}  # tables that need factors of W_t where those are dense
BASED = TUNED | {"localization"}  # tables that need factors of W0
COLUMNS = 16  # of a leading subspace: the cut of locking
PACKED = 3  # bytes of a number of a subspace in a part, at most but where it is spiked (`fixed_point`)
ROWS = 1500  # bytes of a snapshot's rows of one view in a part, compressed
SLACK = 1.2  # measured over summed
PROCESS = 350 * 2**20  # bytes of a worker that has imported torch


def width(cuts: Sequence[int]) -> int:
    """Q, the same as opd_ops.geometry.base.factor_width."""
    return max(96, 2 * max(cuts, default=0))


def dense(shape: Sequence[int], dtype: str, k: Sequence[int]) -> bool:
    """Whether a projection is measured in float64 throughout, without cached base factors."""
    return dtype == "F64" or min(shape) <= max(EXACT, 2 * (width(k) + max(k, default=0) + EXTRA))


def per_base(shape: Sequence[int], dtype: str, tables: Collection[str], k: Sequence[int]) -> float:
    """Operations for the base factors of a projection; 0 if none are needed."""
    if BASED.isdisjoint(tables):
        return 0.0
    m, n = sorted(shape)
    if dense(shape, dtype, k):
        return _factors(m, n)
    return 2.0 * m * m * n + 14.0 * m**3 + 12.0 * width(k) * m * n


def per_snapshot(
    shape: Sequence[int], dtype: str, tables: Collection[str], k: Sequence[int], *, projection: bool
) -> float:
    """Operations for the requested tables of one snapshot, which stores `dtype`."""
    if not tables:
        return 0.0
    views = 2 if dtype in MASTER else 1
    nulls = views + 1 if "nulls" in tables else 0
    if not projection:
        return 30.0 * math.prod(shape) * views
    m, n = sorted(shape)
    spectra = not SPECTRA.isdisjoint(tables)
    if dense(shape, dtype, k):
        factored = (not TUNED.isdisjoint(tables)) + (spectra or "update_norm" in tables)
        return (_factors(m, n) * factored + 60.0 * m * n) * views + _factors(m, n) * nulls
    spectrum, lanczos = m * m * n + 4.0 * m**3, 50.0 * m * KRYLOV**2 * (m > TRIDIAGONAL)
    each = 60.0 * m * n
    if not ROTATION.isdisjoint(tables):
        each += 6.0 * m * n * (2 * width(k) + 8 * (max(k, default=0) + 8))
    each += 2 * spectrum * ("spectral_drift" in tables)
    each += spectrum * spectra + lanczos * ("locking" in tables)
    each += 2500.0 * m * n * ("update_norm" in tables and not spectra)
    return each * views + (spectrum + lanczos) * nulls


def base_bytes(shape: Sequence[int], dtype: str, k: Sequence[int]) -> int:
    """Bytes of the cached base factors of a projection, 8 Q (m + n) + 8 m + 2 m G; 0 where it is dense."""
    if dense(shape, dtype, k):
        return 0
    m, n = sorted(shape)
    q = min(width(k), m)
    return 8 * q * (m + n) + 8 * m + 2 * m * min(m // GUARD, m - q)


def mask_bytes(shape: Sequence[int], dtype: str, k: Sequence[int]) -> int:
    """Bytes of the cached masks of localization: two, of two weights each, of two bits an entry; 0 where dense."""
    return 0 if dense(shape, dtype, k) else math.prod(shape)


def peak_bytes(
    shape: Sequence[int], dtype: str, stored: int, tables: Collection[str], k: Sequence[int], *, read: int = 0
) -> int:
    """Highest memory of a worker on a projection. dtype: of W0; stored: bytes of the weight as stored.

    W0 and W_t as stored, and the largest of: the base's eigenvectors (four float64 m x m), W_t and E in f32 beside the
    largest Gram matrix and its copy, or beside what a weight takes while it is read (`read` bytes), and for nulls the
    final weight, seven f32 copies and a byte a weight. Dense: five float64 copies and three Gram matrices. SLACK is
    what `make bench` (figure 4) saw beyond these sums: workspaces, and pages that the allocator keeps.
    """
    m, n = sorted(shape)
    if dense(shape, dtype, k):
        return PROCESS + int(SLACK * (2 * stored + max(read, 8 * (5 * m * n + 3 * m * m))))
    phases = [8 * m * n + 12 * m * m, 8 * m * n + read]
    if not BASED.isdisjoint(tables):
        gram, base = 16 if "spectral_drift" in tables else 12, 2 * base_bytes(shape, dtype, k)
        phases += [32 * m * m, base + 8 * m * n + gram * m * m, base + 8 * m * n + read]
    if "nulls" in tables:
        phases.append(stored + 29 * m * n + 12 * m * m)
    return PROCESS + int(SLACK * (2 * stored + max(phases)))


def kept_bytes(shape: Sequence[int], snapshots: int, views: int, tables: Collection[str]) -> int:
    """Memory of a projection's leading subspaces of all snapshots: f32, and one side of one view in float64."""
    return COLUMNS * (4 * sum(shape) * views + 8 * max(shape)) * snapshots * ("locking" in tables)


def stored_bytes(shape: Sequence[int], snapshots: int, views: int, tables: Collection[str]) -> int:
    """Bytes of a projection's parts in the store, of so many snapshots: leading subspaces of updates, and of shuffled
    nulls at few steps, and rows of all tables."""
    subspaces = snapshots * ("locking" in tables) + min(snapshots, MOST) * ("nulls" in tables)
    return (PACKED * COLUMNS * sum(shape) * subspaces + ROWS * snapshots) * views


def projected_bytes(shape: Sequence[int], stored: int, *, exact: bool) -> int:
    """Memory of a worker that projects an update to its end: three weights, five copies, three Gram matrices."""
    m, n = sorted(shape)
    return PROCESS + int(SLACK * (3 * stored + 5 * m * n * (8 if exact else 4) + 24 * m * m))


def streamed_bytes(stored: int, block: int, read: int) -> int:
    """Highest memory of a worker on what is no projection, compared `block` bytes of a weight at a time.

    Two blocks, what one takes while it is read, in proportion, and support's own copies of a part of them.
    """
    part = min(stored, block)
    return PROCESS + int(SLACK * (2 * part + read * part // max(stored, 1) + min(3 * 2**25, 6 * part)))


def _factors(m: int, n: int) -> float:
    """Float64 factors of a small matrix."""
    return 10.0 * m * m * n + 30.0 * m**3
