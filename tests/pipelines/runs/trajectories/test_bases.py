"""Subspaces of planted runs and files: their span, their orthonormality, and every way in which one is refused."""

import hashlib
from pathlib import Path

import pytest
import torch

from opd_ops.recipe import Constraint, Given, Random, UpdateOf, WeightsOf
from pipelines.runs.trajectories import bases
from pipelines.store.tensors import serialise
from pipelines.store.trajectory import Trajectory

Q, UP, EMBED, NORM = (
    "model.layers.0.self_attn.q_proj.weight",
    "model.layers.0.mlp.up_proj.weight",
    "model.embed_tokens.weight",
    "model.norm.weight",
)
SHAPES = {Q: (10, 7), UP: (12, 7), EMBED: (9, 7), NORM: (7,)}
K = 3


def randoms(seed):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}


def orthonormal(rows, columns, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(rows, columns, generator=generator, dtype=torch.float64)).Q


def planted(name, rank=7):
    """(U, V, U S V^T) with singular values 2^0, 2^-1, ..."""
    u, v = orthonormal(SHAPES[name][0], rank, 1), orthonormal(SHAPES[name][1], rank, 2)
    return u, v, (u * 2.0 ** -torch.arange(rank)) @ v.T


@pytest.fixture
def run(store):
    """A run with snapshots 0, 4 and 8 whose update at step 4 is planted on dyadic weights, so that nothing rounds."""
    trajectory = Trajectory(store, "test.source", 0)
    start = {name: torch.zeros(shape) for name, shape in SHAPES.items()}
    moved = {name: planted(name)[2].float() if name in (Q, UP) else w for name, w in start.items()}
    for step, weights in ((0, start), (4, moved), (8, randoms(8))):
        trajectory.commit(step, weights, None)
    return trajectory


def limits(basis, **changes):
    return Constraint(**({"basis": basis, "rank": K, "side": "both"} | changes))


def made(store, basis, seed=0, weights=None, **changes):
    return bases.make_bases(store, limits(basis, **changes), seed, randoms(0) if weights is None else weights)


def same_span(one, other):
    return torch.allclose(one @ one.T, other @ other.T, atol=1e-6)  # the snapshot is fp32


def test_an_update_gives_its_leading_singular_vectors(store, run):
    found, digests = made(store, UpdateOf(recipe="test.source", step=4))
    assert found.keys() == {Q, UP}
    assert digests == {"start": run.digest(0), "step": run.digest(4)}
    for name, space in found.items():
        u, v, _ = planted(name)
        assert same_span(space.left, u[:, :K]) and same_span(space.right, v[:, :K])
        for vectors in (space.left, space.right):
            assert vectors.dtype == torch.float64
            assert torch.allclose(vectors.T @ vectors, torch.eye(K).double(), rtol=0, atol=1e-13)
            assert (vectors.gather(0, vectors.abs().argmax(0, keepdim=True)) > 0).all()


def test_the_difference_of_masters_is_taken_in_float64(store):
    """An update of one ulp is found exactly, since two fp32 numbers differ by a float64."""
    trajectory, start = Trajectory(store, "test.fine", 0), {name: torch.ones(shape) for name, shape in SHAPES.items()}
    moved = {name: w.clone() for name, w in start.items()}
    for name in (Q, UP):
        for i in range(K):
            moved[name][i, i] += 2.0**-23 * (K - i)
    trajectory.commit(0, start, None)
    trajectory.commit(1, moved, 0)
    found, _ = made(store, UpdateOf(recipe="test.fine", step=1))
    assert torch.equal(found[Q].right, torch.eye(7)[:, :K].double())
    assert torch.equal(found[Q].left, torch.eye(10)[:, :K].double())


def test_weights_give_theirs_by_default_at_the_start(store, run):
    run.store.remove(f"{run.prefix}/step-00000000")
    run.commit(0, randoms(5), None)
    found, digests = made(store, WeightsOf(recipe="test.source"))
    assert digests == {"step": run.digest(0)}
    u, _, vh = torch.linalg.svd(randoms(5)[Q].double())
    assert same_span(found[Q].left, u[:, :K]) and same_span(found[Q].right, vh[:K].T)
    assert made(store, WeightsOf(recipe="test.source", step=8))[1] == {"step": run.digest(8)}


def test_a_basis_of_no_seed_is_of_the_runs_own(store, run):
    other = Trajectory(store, "test.source", 3)
    other.commit(0, randoms(1), None)
    assert made(store, WeightsOf(recipe="test.source"), seed=3)[1] == {"step": other.digest(0)}
    assert made(store, WeightsOf(recipe="test.source", seed=0, step=8), seed=3)[1] == {"step": run.digest(8)}


@pytest.mark.parametrize("side", ["right", "left"])
def test_one_side_is_the_same_as_of_both(side, store, run):
    for basis in (Random(), UpdateOf(recipe="test.source", step=4)):
        one, both = made(store, basis, side=side)[0][Q], made(store, basis)[0][Q]
        assert torch.equal(getattr(one, side), getattr(both, side))
        assert getattr(one, {"right": "left", "left": "right"}[side]) is None


def test_random_subspaces_depend_on_seed_draw_name_and_side_alone(store):
    found = made(store, Random())[0]
    assert made(store, Random())[1] == {}
    turned = dict(reversed(randoms(3).items()))
    again = made(store, Random(), weights=turned, roles=("up", "q"))[0]
    alone = made(store, Random(), roles=("up",))[0]
    for name in (Q, UP):
        assert torch.equal(found[name].left, again[name].left) and torch.equal(found[name].right, again[name].right)
    assert torch.equal(alone[UP].right, found[UP].right)
    others = [made(store, Random(draw=1))[0][Q], made(store, Random(), seed=1)[0][Q], found[UP]]
    assert not any(torch.allclose(other.right, found[Q].right, atol=0.1) for other in others)
    square = {Q: torch.zeros(7, 7)}
    both = made(store, Random(), weights=square)[0][Q]
    assert not torch.allclose(both.left, both.right, atol=0.1)


def test_random_subspaces_are_uniform(store):
    """E[V V^T] = K/n of the identity, and E[V] = 0, which QR alone, whose R has signs, would not give."""
    count, columns = 600, []
    for draw in range(count):
        columns.append(made(store, Random(draw=draw), side="right", roles=("q",))[0][Q].right)
    v = torch.stack(columns)
    assert torch.allclose(v.transpose(1, 2) @ v, torch.eye(K).double().expand(count, K, K), atol=1e-13)
    projection = (v @ v.transpose(1, 2)).mean(0)
    # An entry of V V^T has a standard deviation below 0.25, and five of them over sqrt(600) are 0.05.
    assert torch.allclose(projection, K / 7 * torch.eye(7).double(), rtol=0, atol=0.05)
    assert float(v.mean(0).abs().max()) < 5 * 7**-0.5 / count**0.5


def write(tmp_path, **changes):
    """A file with 4 columns for each side of Q and UP; the tensors by name and the path."""
    tensors = {}
    for name in (Q, UP):
        for side, size in zip(("left", "right"), SHAPES[name], strict=True):
            tensors[f"{side}/{name}"] = orthonormal(size, 4, size)
    tensors = {name: w for name, w in (tensors | changes).items() if w is not None}
    path = tmp_path / "basis.safetensors"
    path.write_bytes(serialise(tensors))
    return tensors, str(path)


def test_a_file_gives_its_first_columns_made_orthonormal(store, tmp_path):
    tensors, path = write(tmp_path, **{f"right/{Q}": orthonormal(7, 4, 9).float() * (1 + 4e-5)})
    found, digests = made(store, Given(path=path))
    assert digests == {"file": hashlib.sha256(Path(path).read_bytes()).hexdigest()}
    for name, space in found.items():
        for side, vectors in (("left", space.left), ("right", space.right)):
            assert torch.allclose(vectors, tensors[f"{side}/{name}"][:, :K].double(), rtol=0, atol=1e-4)
            assert torch.allclose(vectors.T @ vectors, torch.eye(K).double(), rtol=0, atol=1e-13)


@pytest.mark.parametrize(
    ("key", "tensor", "message"),
    [
        (f"right/{Q}", None, r"basis\.safetensors has no tensor right/model\.layers\.0\.self_attn\.q_proj\.weight$"),
        (f"right/{Q}", torch.eye(6)[:, :4], r"right/.*q_proj\.weight of .* has shape \(6, 4\), and \(7, 3 or more\)"),
        (f"left/{UP}", torch.eye(12)[:, :2], r"left/.*up_proj\.weight of .* has shape \(12, 2\), and \(12, 3 or more"),
        (f"left/{UP}", torch.ones(12), r"left/.*up_proj\.weight of .* has shape \(12,\), and \(12, 3 or more"),
        (
            f"left/{UP}",
            1.001 * torch.eye(12),
            r"first 3 columns of left/.*up_proj\.weight .* not orthonormal, by 2\.0e",
        ),
        (f"left/{UP}", torch.eye(12) * float("nan"), r"first 3 columns of left/.*up_proj\.weight .* not orthonormal"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_by_tensor(key, tensor, message, store, tmp_path):
    _, path = write(tmp_path, **{key: tensor})
    with pytest.raises(ValueError, match=message) as caught:
        made(store, Given(path=path))
    assert "\n" not in str(caught.value)


def test_a_file_that_is_absent_or_foreign_is_named(store, tmp_path):
    with pytest.raises(ValueError, match=r"the constraint's file .*/nothing\.safetensors does not exist"):
        made(store, Given(path=str(tmp_path / "nothing.safetensors")))
    (tmp_path / "text").write_text("not a safetensors file")
    with pytest.raises(ValueError, match=r"text is not a safetensors file"):
        made(store, Given(path=str(tmp_path / "text")))


@pytest.mark.parametrize("basis", [Random(), UpdateOf(recipe="test.source", step=4)])
def test_a_rank_past_the_matrix_is_refused_with_its_shape(basis, store, run):
    name = r"model\.layers\.0\.self_attn\.q_proj\.weight"
    message = rf"^constraint\.rank 8 is more than {name} of shape \(10, 7\) has; choose 7 at most$"
    with pytest.raises(ValueError, match=message):
        made(store, basis, rank=8)


def test_a_snapshot_that_is_not_there_names_those_that_are(store, run):
    with pytest.raises(ValueError, match=r"^runs/test\.source/seed-0 has no snapshot of step 5; .* steps 0, 4, 8$"):
        made(store, UpdateOf(recipe="test.source", step=5))
    with pytest.raises(
        ValueError, match=r"^runs/test\.none/seed-0 has no snapshot of step 0; .* none: train it first$"
    ):
        made(store, WeightsOf(recipe="test.none"))


def test_an_update_of_too_low_a_rank_is_refused(store, run):
    low = Trajectory(store, "test.low", 0)
    start = {name: torch.zeros(shape) for name, shape in SHAPES.items()}
    low.commit(0, start, None)
    low.commit(2, start | {Q: torch.diag(torch.tensor([1.0, 0.5, 0, 0, 0, 0, 0]))[:, :7].repeat(2, 1)[:10]}, 0)
    message = r"^the update of .*q_proj\.weight at step 2 of runs/test\.low/seed-0 has rank 2, and .* 3 directions$"
    with pytest.raises(ValueError, match=message):
        made(store, UpdateOf(recipe="test.low", step=2))
    still = {name: w.clone() for name, w in start.items()}
    low.commit(3, still, 2)
    with pytest.raises(ValueError, match=r"the update of .* at step 3 .* has rank 0"):
        made(store, UpdateOf(recipe="test.low", step=3))
    with pytest.raises(ValueError, match=r"^basis\.step is a step from 1 up, where there is an update, got 0$"):
        UpdateOf(recipe="test.low", step=0)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({Q: torch.zeros(10, 6)}, r"q_proj\.weight is of shape \(10, 7\) in step 4 of .*, and \(10, 6\) is wanted"),
        ({Q.replace("0", "1"): torch.zeros(10, 7)}, r"layers\.1\..*q_proj\.weight is absent in step 4 of runs/test"),
    ],
)
def test_a_run_of_another_model_is_refused(weights, message, store, run):
    with pytest.raises(ValueError, match=message):
        made(store, UpdateOf(recipe="test.source", step=4), weights=weights)


@pytest.mark.parametrize("shape", [(520, 600), (600, 520)])
@pytest.mark.parametrize(("decay", "dense"), [(0.5, 0), (0.1, 1)])
def test_large_matrices_have_the_vectors_of_an_svd(shape, decay, dense, monkeypatch):
    """By their Gram matrix, and by the SVD itself where the twelfth value is below 1e-5 of the first."""
    generator, calls, svd = torch.Generator().manual_seed(3), [], torch.linalg.svd
    u, v = (torch.linalg.qr(torch.randn(size, 20, generator=generator).double()).Q for size in shape)
    monkeypatch.setattr(torch.linalg, "svd", lambda *a, **k: (calls.append(a), svd(*a, **k))[1])
    found = bases._leading_vectors((u * decay ** torch.arange(20)) @ v.T, 12, "it")
    assert len(calls) == dense
    for side, true in (("left", u), ("right", v)):
        for vectors, wanted in zip(found[side].T, true[:, :12].T, strict=True):
            assert abs(float(vectors @ wanted)) == pytest.approx(1.0, abs=1e-8)
        assert torch.allclose(found[side].T @ found[side], torch.eye(12).double(), rtol=0, atol=1e-12)


def test_a_large_update_of_too_few_directions_is_refused_by_its_rank():
    u, v = torch.linalg.qr(torch.randn(520, 3).double()).Q, torch.linalg.qr(torch.randn(530, 3).double()).Q
    with pytest.raises(ValueError, match=r"^it has rank 3, and the constraint wants 4 directions$"):
        bases._leading_vectors(u @ v.T, 4, "it")
