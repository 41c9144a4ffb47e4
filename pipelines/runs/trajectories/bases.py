"""The subspaces that a constraint names, from snapshots in the store, a file or random numbers.

    update     leading singular vectors of W_step - W_0 of a run's fp32 masters, in float64
    weights    leading singular vectors of W_step
    random     Q of a Gaussian matrix's QR with R's diagonal positive (uniform over subspaces), a generator per matrix
    given      the first K columns of a file, orthonormal to 1e-4, orthonormalised in float64

The largest entry of a singular vector is positive. A matrix with a side up to 512 has a dense
SVD; a larger one the float64 Gram matrix of its smaller side, at a third of the cost, if the last value wanted is above
1e-5 of the first, where squaring leaves six digits of it; otherwise the SVD.
"""

import hashlib
import posixpath
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from opd_ops.linalg import gram_factors
from opd_ops.recipe import Constraint, Given, Random, UpdateOf
from opd_ops.training.constraint import confined_names
from opd_ops.training.subspace import Subspace
from pipelines.store import integrity
from pipelines.store.objects import Store, normalise
from pipelines.store.tensors import TensorRef, list_tensors
from pipelines.store.trajectory import Trajectory

DIRECTIONS = 5  # stream of random numbers; opd_ops.training.batches has the others
DENSE = 512  # largest smaller side that is decomposed itself
RESOLVED = 1e-5  # of the first singular value: above it a Gram matrix tells values apart
ORTHONORMAL = 1e-4  # largest entry of V^T V - 1 in a given file
SIDES = {"left": 0, "right": 1}  # the dimension of W [out, in] that a side's vectors have

Sides = Callable[[str], Mapping[str, Tensor]]  # a matrix's vectors by side, in columns


def make_bases(
    store: Store, constraint: Constraint, seed: int, weights: Mapping[str, Tensor]
) -> tuple[dict[str, Subspace], dict[str, Any]]:
    """Subspaces by parameter name for a run with `seed` that starts from `weights`, and the digests of their sources.

    Errors: ValueError naming the matrix and its shape where the rank is too large, the snapshot, matrix or file that is
    absent, and vectors that are too few, of another length or not orthonormal.
    """
    names = confined_names(constraint, weights)
    for name in names:
        if constraint.rank > min(weights[name].shape):
            raise ValueError(
                f"constraint.rank {constraint.rank} is more than {name} of shape {tuple(weights[name].shape)} has; "
                f"choose {min(weights[name].shape)} at most"
            )
    sides = [side for side in SIDES if constraint.side in (side, "both")]
    vectors, digests = _source(store, constraint, seed, weights, sides)
    subspaces = {}
    for name in names:
        columns = vectors(name)
        subspaces[name] = Subspace(**{side: columns[side].contiguous() for side in sides})
    return subspaces, digests


def _source(
    store: Store, constraint: Constraint, seed: int, weights: Mapping[str, Tensor], sides: list[str]
) -> tuple[Sides, dict[str, Any]]:
    basis, rank = constraint.basis, constraint.rank
    if isinstance(basis, Random):
        return lambda name: _draw_vectors(name, weights[name], (seed, DIRECTIONS, basis.draw), rank, sides), {}
    if isinstance(basis, Given):
        return _read_file(basis.path, weights, rank, sides)
    trajectory = Trajectory(store, basis.recipe, seed if basis.seed is None else basis.seed)
    trajectory.require_steps(basis.step)
    refs, digests = integrity.verified_refs(trajectory, basis.step), {"step": trajectory.digest(basis.step)}
    begin: dict[str, TensorRef] = {}
    if isinstance(basis, UpdateOf):
        begin, digests = integrity.verified_refs(trajectory, 0), digests | {"start": trajectory.digest(0)}

    def vectors(name: str) -> dict[str, Tensor]:
        where = f"step {basis.step} of {trajectory.prefix}"
        if name not in refs or refs[name].shape != weights[name].shape:
            actual = f"of shape {refs[name].shape}" if name in refs else "absent"
            raise ValueError(f"{name} is {actual} in {where}, and {tuple(weights[name].shape)} is wanted")
        matrix = refs[name].read().double()
        if begin:
            matrix -= begin[name].read().double()
        return _leading_vectors(matrix, rank, f"{'the update of ' if begin else ''}{name} at {where}")

    return vectors, digests


def _leading_vectors(matrix: Tensor, rank: int, what: str) -> dict[str, Tensor]:
    """A matrix's leading singular vectors. Errors: ValueError for fewer than `rank`."""
    if min(matrix.shape) > DENSE:
        u, values, v = gram_factors(matrix, rank)
        if len(values) >= rank and values[rank - 1] > RESOLVED * values[0]:
            return {"left": _fix_signs(u), "right": _fix_signs(v)}
    u, values, vh = torch.linalg.svd(matrix, full_matrices=False)
    floor = values[0] * max(matrix.shape) * torch.finfo(values.dtype).eps
    if (there := int((values > floor).sum())) < rank:
        raise ValueError(f"{what} has rank {there}, and the constraint wants {rank} directions")
    return {side: _fix_signs(vectors[:, :rank]) for side, vectors in (("left", u), ("right", vh.T))}


def _fix_signs(vectors: Tensor) -> Tensor:
    largest = vectors.gather(0, vectors.abs().argmax(0, keepdim=True))
    return vectors * largest.sign()


def _draw_vectors(name: str, weight: Tensor, key: tuple[int, ...], rank: int, sides: list[str]) -> dict[str, Tensor]:
    number = int.from_bytes(
        hashlib.sha256(name.encode()).digest()[:8], "big"
    )  # so that the order of names does not matter
    vectors = {}
    for side in sides:
        rng = np.random.default_rng((*key, number, SIDES[side]))
        vectors[side] = _orthonormal(torch.from_numpy(rng.standard_normal((weight.shape[SIDES[side]], rank))))
    return vectors


def _orthonormal(columns: Tensor) -> Tensor:
    """Q of QR with R's diagonal positive: uniform for Gaussian columns, and close to columns that almost are."""
    q, r = torch.linalg.qr(columns)
    return q * r.diagonal().sign()


def _read_file(path: str, weights: Mapping[str, Tensor], rank: int, sides: list[str]) -> tuple[Sides, dict[str, Any]]:
    folder, name = posixpath.split(normalise(path))
    store = Store(folder)
    if not store.exists(name):
        raise ValueError(f"the constraint's file {path} does not exist; name one with orthonormal columns")
    refs = list_tensors(store, name)

    def vectors(matrix: str) -> dict[str, Tensor]:
        columns_by_side = {}
        for side in sides:
            key, size = f"{side}/{matrix}", weights[matrix].shape[SIDES[side]]
            if key not in refs:
                raise ValueError(f"{path} has no tensor {key}")
            shape = refs[key].shape
            if len(shape) != 2 or shape[0] != size or shape[1] < rank:
                raise ValueError(f"{key} of {path} has shape {shape}, and ({size}, {rank} or more) is wanted")
            columns = refs[key].read().double()[:, :rank]
            apart = float((columns.T @ columns - torch.eye(rank, dtype=columns.dtype)).abs().max())
            if not apart <= ORTHONORMAL:
                raise ValueError(f"the first {rank} columns of {key} of {path} are not orthonormal, by {apart:.1e}")
            columns_by_side[side] = _orthonormal(columns)
        return columns_by_side

    return vectors, {"file": hashlib.sha256(store.read(name)).hexdigest()}
