"""Snapshots kept as updates in bf16: the view is exact, the master within its bound, and metrics hardly move."""

import uuid

import pytest
import torch

from opd_ops.geometry.settings import Settings
from opd_ops.geometry.suite import measure_matrix
from pipelines.store import codec
from pipelines.store.checkpoints import open_checkpoint
from pipelines.store.matrix import MatrixRef
from pipelines.store.objects import Store
from pipelines.store.trajectory import Trajectory

KEPT = "bf16-update"
NAME = "layers.0.q.weight"


def draw(*shape, seed, scale=1.0):
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def start():
    return {NAME: draw(160, 96, seed=0, scale=0.02), "norm.weight": torch.ones(3), "bias": draw(8, seed=1).bfloat16()}


def later(step):
    """A few directions that grow and noise of many sizes, as an optimizer that divides by a running RMS leaves them."""
    wide = draw(160, 4, seed=2) @ draw(4, 96, seed=3) + draw(160, 96, seed=10 + step).pow(3)
    found = start()
    return found | {NAME: found[NAME] + 1e-5 * step * wide, "norm.weight": found["norm.weight"] + 1e-4 * step}


@pytest.fixture
def run(near):
    trajectory = Trajectory(near, "tiny.opd", 0)
    trajectory.commit(0, start(), None, KEPT)
    for step in (1, 2):
        trajectory.commit(step, later(step), step - 1, KEPT)
    return trajectory


def test_the_first_snapshot_is_exact_and_the_others_name_their_bound(run):
    first = run.refs(0)
    assert all(torch.equal(first[name].read(), tensor) for name, tensor in start().items())
    assert "kept" not in run.manifest(0) and run.manifest(0)["base"] is None
    for step in (1, 2):
        manifest = run.manifest(step)
        assert (manifest["kept"], manifest["bound"]) == (KEPT, 2.0**-8)
        assert manifest["base"] == {"step": 0, "digest": run.digest(0)} and run.verify(step) == []
        assert manifest["files"]["master.safetensors"]["size"] < 0.4 * 4 * 160 * 96


def test_the_view_is_exact_and_the_master_within_its_bound(run):
    for step in (1, 2):
        found, wanted, base = run.refs(step)[NAME].read(), later(step)[NAME], start()[NAME]
        assert torch.equal(found.bfloat16(), wanted.bfloat16())
        wide = wanted.double()
        bound = codec.BOUND * (wide - base.double()).abs() + 2.0**-24 * wide.abs()
        assert ((found.double() - wide).abs() <= bound).all()
        error = float((found.double() - wide).norm() / (wanted - base).double().norm())
        assert run.manifest(step)["tensors"][NAME]["error"] == pytest.approx(error, rel=1e-12) and 0 < error < 2.0**-8


def test_what_is_small_or_no_fp32_is_kept_as_it_is(run):
    refs, wanted = run.refs(2), later(2)
    for name in ("bias", "norm.weight"):
        assert refs[name].code is None and torch.equal(refs[name].read(), wanted[name])


def test_the_digest_is_of_what_is_read(run, tmp_path):
    found = {name: ref.read() for name, ref in run.refs(2).items()}
    alone = Trajectory(Store(f"file://{tmp_path}/alone"), "tiny.opd", 0)
    assert alone.commit(0, found, None) == run.digest(2)


def test_a_snapshot_is_committed_once(run):
    assert run.commit(2, later(2), 1, KEPT) == run.digest(2)
    with pytest.raises(ValueError, match="holds other weights"):
        run.commit(2, later(1), 1, KEPT)


def test_rows_are_read_by_themselves_and_elsewhere(run):
    ref = run.refs(2)[NAME]
    matrix = MatrixRef(name="q", source=NAME, layer=0, role="q", ref=ref, shape=(160, 96))
    assert torch.equal(matrix.read_rows(7, 12), ref.read()[7:12])
    opened = open_checkpoint("step 2", f"{run.store.uri}/{run.prefix}/step-00000002")
    assert torch.equal(opened.tensors[NAME].read(), ref.read())


@pytest.mark.parametrize("file", ["master.safetensors", "bf16.safetensors"])
def test_a_damaged_file_is_named(run, file):
    key = f"{run.prefix}/step-00000002/{file}"
    place = run.manifest(2)["tensors"][NAME]
    data = bytearray(run.store.read(key))
    data[(place if file == place["file"] else place["view"])["begin"]] ^= 1
    run.store.write(key, bytes(data))
    assert run.verify(2) == [f"{key} differs from its manifest"]
    with pytest.raises(ValueError, match=rf"tensor {NAME} is no code"):
        run.refs(2)[NAME].read()


def test_metrics_of_the_update_hardly_move():
    base = draw(768, 512, seed=20, scale=0.02)
    left, right = (torch.linalg.qr(draw(n, 512, seed=n))[0] for n in (768, 512))
    spectrum = torch.arange(1, 513).float() ** -0.7
    wide = 30 * (left * spectrum) @ right.T
    exact = [(1, base + 1e-4 * wide), (2, base + 1e-4 * (wide + 0.01 * draw(768, 512, seed=24)))]
    tables = ("update_norm", "update_spectrum", "hill", "locking")
    settings = Settings(k=(16,), alpha=(0.5,), hill_k=(16, 64), locking_k=(16,), tables=tables, dense=False)
    found = []
    for snapshots in (exact, [(step, restored(w, base)) for step, w in exact]):
        rows = measure_matrix(base, snapshots, settings=settings, projection=True).rows
        found.append({table: [row for row in rows[table] if row["view"] == "master"] for table in tables})
    bounds = {"stable_rank": 1e-4, "effective_rank": 1e-4, "similarity": 1e-4, "hill": 1e-3}
    seen = set()
    for table in tables:
        for one, other in zip(found[0][table], found[1][table], strict=True):
            for column in bounds.keys() & one.keys():
                if isinstance(one[column], float):
                    assert other[column] == pytest.approx(one[column], rel=bounds[column]), (table, column)
                    seen.add(column)
    assert seen == set(bounds)


def restored(w, base):
    """What a trajectory would give back."""
    trajectory = Trajectory(Store(f"memory://{uuid.uuid4().hex}"), "tiny.opd", 0)
    trajectory.commit(0, {"w": base}, None, KEPT)
    trajectory.commit(1, {"w": w}, 0, KEPT)
    return trajectory.refs(1)["w"].read()
