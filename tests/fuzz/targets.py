"""What is damaged, and who reads it: every reader of the project, each over objects as the project writes them.

A target plants objects in a store, names those to be damaged and how, and reads. Where something pins what was written
(a seal, a digest, a checksum), what is read must be that, or nothing, or a refusal; elsewhere it may be other numbers.

The file is longer than 350 lines because it is a table of readers with what they read.
"""

import hashlib
import json
import os
import random
import tempfile
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pipelines import lake
from pipelines.lake.lake import find_damaged as damaged_table
from pipelines.lake.lake import partition_key
from pipelines.maintenance import audit, object_checks, snapshot_checks
from pipelines.maintenance.exporting import restore_weights
from pipelines.maintenance.inventory import classify, parse_run
from pipelines.runs.external import imports
from pipelines.runs.geometry import measuring, parts, records
from pipelines.runs.trajectories import starts
from pipelines.store import checksum, codec
from pipelines.store.bases import BaseCache
from pipelines.store.byteplanes import BytePlanes, NoCode
from pipelines.store.checkpoints import open_checkpoint
from pipelines.store.matrices import matrices
from pipelines.store.objects import Store
from pipelines.store.pairing import pair
from pipelines.store.rollouts import Rollouts
from pipelines.store.tensors import list_tensors, serialise
from pipelines.store.trajectory import Trajectory
from pipelines.studies.study import Measurement
from tests.fuzz.mutations import NAMES, damaged, reheaded, said_otherwise

NOTHING = "nothing is read"
Q = "model.layers.0.self_attn.q_proj.weight"
BASE = f"bases/d0/v{measuring.VERSION}/triplets-4"
RUN = "runs/tiny.opd/seed-0"
LAST = f"{RUN}/step-00000007"
Draw = random.Random
Mutate = Callable[[bytes, Draw], bytes]


@dataclass(frozen=True, kw_only=True)
class Target:
    """plant: writes objects. hurt: by key, how it may be damaged. read: what a reader makes of the store.

    A key that ends with / is the first object under it. pinned: damage is seen, whatever it is, unless it was sealed
    again. names: what a refusal names.
    """

    plant: Callable[[Store], object]
    hurt: dict[str, tuple[Mutate, ...]]
    read: Callable[[Store], Any]
    pinned: bool = True
    names: str = ""


def sealed(data: bytes, draw: Draw) -> bytes:
    """Said otherwise, and sealed again by who did it."""
    changed = said_otherwise(data, draw)
    try:
        found = json.loads(changed)
        found.pop(checksum.FIELD, None)
        return (json.dumps(checksum.add_checksum(found), indent=1, sort_keys=True) + "\n").encode()
    except (ValueError, RecursionError, AttributeError):
        return changed


def _bytes(tensors: dict[str, Any]) -> dict[str, bytes]:
    import torch

    return {name: w.contiguous().view(torch.uint8).numpy().tobytes() if w.ndim else b"" for name, w in tensors.items()}


def _weights(step: int) -> dict[str, Any]:
    import torch

    draw = lambda *shape, seed: torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    names = {Q: (24, 20), "model.layers.0.mlp.down_proj.weight": (16, 24)}
    found = {name: draw(*s, seed=i) + 1e-4 * step * draw(*s, seed=9 + i) for i, (name, s) in enumerate(names.items())}
    return found | {"model.norm.weight": torch.ones(20)}


def _run(store: Store, kept: Any = "exact") -> Trajectory:
    """A complete run of four snapshots with moments and a resume state."""
    import torch

    run = Trajectory(store, "tiny.opd", 0)
    identity = {"study": "tiny", "arm": "opd", "start": {"kind": "final", "recipe": "tiny.base", "seed": 0}}
    model = {"model_type": "qwen3", "hidden_size": 20}
    run.register({"identity": identity, "fingerprint": "f", "inputs": {"start": "0"}, "model": model, "provenance": {}})
    parent = None
    for step in (0, 1, 7):
        run.commit(step, _weights(step), parent, kept)
        parent = step
    run.save_moments(1, 1, {"m": torch.ones(5)})
    run.finish({"step": 7, "digest": run.digest(7), "snapshots": [0, 1, 7], "evaluation": []})
    run.save_resume(7, {"s": torch.ones(7)}, {"parent": 1, "tables": {}})
    return run


def _snapshot(store: Store) -> Any:
    run = Trajectory(store, "tiny.opd", 0)
    found = _bytes(restore_weights(run, 7))
    for ref in run.refs(7).values():
        rows = ref.shape[0] // 2
        part = ref.entries(0, rows * (ref.shape[1] if len(ref.shape) > 1 else 1))
        assert found[ref.name].startswith(_bytes({"": part})[""])
    return found


def _checked(store: Store) -> Any:
    """What is computed from weights is checked first; a snapshot with findings is not read."""
    run = Trajectory(store, "tiny.opd", 0)
    found = snapshot_checks.check_snapshot(run.snapshot(7), 7, deep=True)
    assert not any("\n" in str(one) for one in found), found
    return NOTHING if found else _snapshot(store)


def _audited(store: Store) -> Any:
    found = audit.audit(store, deep=True).findings
    assert not any("\n" in str(one) for one in found), found
    return NOTHING if found else _snapshot(store)


def _told(store: Store) -> Any:
    run = Trajectory(store, "tiny.opd", 0)
    said, end = run.run(), run.end()
    run.require_same(said, dict(said["identity"]), said["fingerprint"])
    try:
        starts.tokenizer_folder(store, starts.FinalOf(recipe="tiny.opd", seed=0), 0)
    except ValueError as error:
        if "tiny.base/seed-0 is not there" not in str(error):  # the run that it began from, which the store lacks
            raise
    return said["identity"]["study"], said["model"], end and (end["step"], end["digest"], end["snapshots"])


def _file(store: Store) -> Any:
    return _bytes({name: ref.read() for name, ref in list_tensors(store, "w.safetensors").items()})


def _planes(store: Store) -> Any:
    """With how many entries there are, and with a claim that there are more than fit anywhere."""
    import torch

    data, start = store.read("code"), _weights(0)[Q].reshape(-1)
    for count in (2**40, 2**62):
        with suppress(NoCode):
            codec.decode_delta(BytePlanes.from_bytes(data, count, 4), torch.float32, 0, 480, start)
    return _bytes({"": codec.decode_delta(BytePlanes.from_bytes(data, 480, 4), torch.float32, 0, 480, start)})


def _checkpoint(store: Store) -> Any:
    base = open_checkpoint("base", f"{store.uri}/base")
    other = open_checkpoint("snapshot 3", f"{store.uri}/other")
    assert other.head is None or other.tied is not None
    found = [part.read() for one, two in pair(base, other).pairs.values() for part in (one, two)]
    return [list(matrices(other)), len(found), other.stamp != ""]


def _plant_checkpoints(store: Store) -> None:
    from tests.pipelines.store.conftest import llama, save

    ids = {token: i for i, token in enumerate("abcd")}
    save(store, "base", llama(), {"tie_word_embeddings": True, "text_config": {"hidden_size": 4}}, vocabulary=ids)
    sizes = {"num_attention_heads": 2, "num_key_value_heads": 1, "hidden_size": 4, "moe_intermediate_size": 3}
    save(store, "other", llama(1), {"tie_word_embeddings": True, **sizes}, 2, ids)


def _plant_fused(store: Store) -> None:
    from tests.pipelines.store.conftest import draw, save

    sizes = {"num_attention_heads": 2, "num_key_value_heads": 1, "hidden_size": 4, "moe_intermediate_size": 3}
    stem = "model.layers.0."
    tensors = {
        f"{stem}self_attn.qkv_proj.weight": draw(8, 4),
        f"{stem}mlp.gate_up_proj.weight": draw(12, 4),
        f"{stem}mlp.experts.gate_up_proj": draw(2, 6, 4),
        f"{stem}mlp.experts.down_proj": draw(2, 4, 3),
        "gpt_neox.layers.0.attention.query_key_value.weight": draw(12, 4),
    }
    for folder in ("base", "other"):
        save(store, folder, tensors, sizes, 2)


def _plant_import(store: Store) -> None:
    _plant_checkpoints(store)
    imported = imports.plan_import(
        store, f"{store.uri}/base", [(1, f"{store.uri}/other")], Measurement(tables=("hill",)), "x"
    )
    imports.measure_import(imported, serial=True)


def _imported(store: Store) -> Any:
    asked = Measurement(tables=("hill",))
    imported = imports.plan_import(store, f"{store.uri}/base", [(1, f"{store.uri}/other")], asked, "x")
    found = [entry for task in imported.work for entry in (*parts.list_entries(task), *parts.Parts(task).entries)]
    for task in imported.work:
        parts.missing_units(task, found)
    return imported.steps


def _measured(store: Store) -> Any:
    run = Trajectory(store, "tiny.opd", 0)
    records.parse_fields(store, f"{run.prefix}/measured.json").get("from")
    problems = measuring.read_problems(store, run)
    others_said = [found for found in audit.audit(store).findings if "measured.json" not in found.key]
    return problems, len(others_said)


def _plant_measured(store: Store) -> None:
    run = _run(store)
    made = {"snapshots": {str(step): run.digest(step) for step in run.steps()}, "settings": {"tables": []}}
    store.write(f"{run.prefix}/measured.json", json.dumps({"from": made, "problems": ["w is NaN"]}).encode())


ROWS = [
    {"study": "tiny", "recipe": "tiny.opd", "seed": 0, "step": step, "loss": step / 7, "tokens": 3}
    for step in range(50)
]
PARTITION = partition_key("training", recipe="tiny.opd", seed=0)


def _plant_table(store: Store) -> None:
    known = lake.TABLES["training"].schema
    lake.write(
        store, "training", [{k: v for k, v in row.items() if k in known} for row in ROWS], recipe="tiny.opd", seed=0
    )


def _table(store: Store) -> Any:
    item = classify(PARTITION)
    found = lake.read_partition(store, "training", recipe="tiny.opd", seed=0)
    if object_checks.check_object(store, item):
        return NOTHING
    return found is not None and found.to_dicts()


def _scanned(store: Store) -> Any:
    """A scan is lazy, and Polars' own where it fails; then the damaged object is named."""
    if damaged_table(store):
        return NOTHING
    return lake.scan("training", store.uri).collect().to_dicts()


def _plant_rollouts(store: Store) -> None:
    from tests.pipelines.store.test_rollouts import rows

    rollouts = Rollouts(store, RUN)
    rollouts.append(rows(1, 2, 3))
    rollouts.flush()


def _rollouts(store: Store) -> Any:
    found = Rollouts(store, RUN)
    return [found.read(step) for step in (1, 2, 3)]


def _base(store: Store) -> Any:
    found = BaseCache(store).load("d0", "triplets-4")
    return NOTHING if found is None else _bytes(found)


def _plant_base(store: Store) -> None:
    import torch

    BaseCache(store).save("d0", "triplets-4", {"u": torch.ones(4, 2)})


def _examples(store: Store) -> Any:
    from opd_ops.tasks.examples import read_examples

    handle, path = tempfile.mkstemp(suffix="examples.jsonl")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(store.read("examples.jsonl"))
        return [example.answer for example in read_examples(path).examples]
    finally:
        os.unlink(path)


def _plant_names(store: Store) -> None:
    store.write("name.json", json.dumps("tiny.opd").encode())


def _named(data: bytes, draw: Draw) -> bytes:
    parts = [draw.choice((*NAMES, "tiny.opd", "runs", "0")) for _ in range(draw.choice((1, 1, 2, 3)))]
    return json.dumps(draw.choice(("/", "", "=", "."))[:1].join(parts)).encode()


def _names(store: Store) -> Any:
    """Every place that joins a name of somebody's: all of what is accepted lies in the store."""
    from opd_ops.recipe import FinalOf, NormOf, Replay, SnapshotOf, UpdateOf, WeightsOf

    name, root = json.loads(store.read("name.json")), store.path("")
    files = Store("file:///nowhere/at/all")
    made: list[Callable[[], str]] = [
        lambda: store.path(name),
        lambda: store.path(f"runs/{name}/seed-0/run.json"),
        lambda: store.path(f"{Trajectory(store, name, 0).prefix}/end.json"),
        lambda: store.path(partition_key("training", recipe=name, seed=0)),
        lambda: store.path(Trajectory(store, FinalOf(recipe=name).recipe, 0).prefix),
        lambda: store.path(Trajectory(store, parse_run(name)[0], 0).prefix),
        *(lambda kind=kind: kind(recipe=name) and root for kind in (NormOf, Replay, WeightsOf)),
        *(lambda kind=kind: kind(recipe=name, step=1) and root for kind in (SnapshotOf, UpdateOf)),
    ]
    refused = 0
    for make in made:
        try:
            path = make()
        except ValueError as error:
            refused += 1
            assert "\n" not in str(error) and len(str(error)) < 6_000, error
        else:
            assert path.startswith(root) and ".." not in path.removeprefix(root).split("/"), path
            assert not any(ord(c) < 32 for c in path), path
    with suppress(ValueError):
        path = os.path.normpath(files.path(name))
        assert path == "/nowhere/at/all" or path.startswith("/nowhere/at/all/"), path
    return NOTHING


def _believed(store: Store) -> Any:
    """How no reader may be: it allocates what a header claims."""
    claimed = int.from_bytes(store.read("w.safetensors")[:8], "little")
    assert len(bytearray(claimed)) == claimed
    return NOTHING


JSON, SEALED, TENSORS, BYTES = (
    (said_otherwise, damaged),
    (said_otherwise, sealed, damaged),
    (reheaded, damaged),
    (damaged,),
)
RUN_FILES = {f"{RUN}/run.json": SEALED, f"{RUN}/end.json": SEALED}
SNAPSHOT = {f"{LAST}/manifest.json": SEALED, f"{LAST}/master.safetensors": TENSORS}
CHECKPOINT = {
    "other/model.safetensors.index.json": JSON,
    "other/config.json": JSON,
    "other/model-0-of-2.safetensors": TENSORS,
    "other/model-1-of-2.safetensors": TENSORS,
}


def _plant_parts(store: Store) -> None:
    _plant_import(store)
    store.remove("runs/external.x/seed-0/import.json")


def _parts(store: Store) -> Any:
    """A part is named by its digest, and who changes it can name it anew."""
    for key in store.find("runs/external.x/seed-0/measured"):
        data = store.read(key)
        store.remove(key)
        store.write(f"{key.rpartition('/')[0]}/{hashlib.sha256(data).hexdigest()[:24]}.safetensors", data)
    return _imported(store)


TARGETS = {
    "file": Target(
        plant=lambda s: s.write("w.safetensors", serialise(_weights(1))),
        hurt={"w.safetensors": TENSORS},
        read=_file,
        pinned=False,
        names="w.safetensors",
    ),
    "snapshot": Target(plant=_run, hurt=SNAPSHOT, read=_snapshot, names="runs/"),
    "snapshot of updates": Target(
        plant=lambda s: _run(s, "bf16-update"),
        hurt=SNAPSHOT | {f"{LAST}/bf16.safetensors": TENSORS},
        read=_snapshot,
        names="runs/",
    ),
    "snapshot checked": Target(plant=_run, hurt=SNAPSHOT, read=_checked, names="runs/"),
    "store verified": Target(plant=_run, hurt=SNAPSHOT | RUN_FILES, read=_audited, names="runs/"),
    "run.json and end.json": Target(plant=_run, hurt=RUN_FILES, read=_told, pinned=False, names="runs/"),
    "resume state": Target(
        plant=_run,
        hurt={
            f"{RUN}/resume/step-00000007/{name}": how
            for name, how in (("facts.json", SEALED), ("state.safetensors", TENSORS))
        },
        read=lambda s: (found := Trajectory(s, "tiny.opd", 0).load_resume()) and (found[0], _bytes(found[1])),
        pinned=False,
        names="resume/",
    ),
    "moments": Target(
        plant=_run,
        hurt={
            f"{RUN}/moments/step-00000001/{name}": how
            for name, how in (("facts.json", SEALED), ("state.safetensors", TENSORS))
        },
        read=lambda s: _bytes(Trajectory(s, "tiny.opd", 0).load_moments(1)[1]),
        pinned=False,
        names="moments/",
    ),
    "planes": Target(
        plant=lambda s: s.write("code", codec.encode_delta(*(_weights(t)[Q] for t in (1, 0)))),
        hurt={"code": BYTES},
        read=_planes,
        pinned=False,
    ),
    "checkpoint": Target(
        plant=_plant_checkpoints,
        hurt=CHECKPOINT | {"other/tokenizer.json": JSON},
        read=_checkpoint,
        pinned=False,
    ),
    "fused checkpoint": Target(plant=_plant_fused, hurt=CHECKPOINT, read=_checkpoint, pinned=False),
    "import": Target(
        plant=_plant_import, hurt={"runs/external.x/seed-0/import.json": JSON}, read=_imported, pinned=False
    ),
    "parts": Target(plant=_plant_parts, hurt={"runs/external.x/seed-0/measured/": TENSORS}, read=_parts, pinned=False),
    "measured.json": Target(plant=_plant_measured, hurt={f"{RUN}/measured.json": JSON}, read=_measured, pinned=False),
    "table": Target(plant=_plant_table, hurt={PARTITION: BYTES}, read=_table, names="part-0.parquet"),
    "scan": Target(plant=_plant_table, hurt={PARTITION: BYTES}, read=_scanned, names="part-0.parquet"),
    "rollouts": Target(
        plant=_plant_rollouts,
        hurt={f"{RUN}/rollouts/steps-00000001-00000003.parquet": BYTES},
        read=_rollouts,
        names="steps-",
    ),
    "base factors": Target(
        plant=_plant_base,
        hurt={
            f"bases/d0/v{measuring.VERSION}/triplets-4.{end}": how
            for end, how in (("json", JSON), ("safetensors", TENSORS))
        },
        read=_base,
        pinned=False,
    ),
    "examples": Target(
        plant=lambda s: s.write("examples.jsonl", b'{"question": "1+1?", "answer": "so #### 2"}\n' * 3),
        hurt={"examples.jsonl": BYTES},
        read=_examples,
        pinned=False,
        names="examples.jsonl",
    ),
    "believer": Target(
        plant=lambda s: s.write("w.safetensors", serialise(_weights(1))),
        hurt={"w.safetensors": TENSORS},
        read=_believed,
    ),
    "names": Target(plant=_plant_names, hurt={"name.json": (_named,)}, read=_names, pinned=False),
}


def planted(name: str) -> tuple[Store, dict[str, tuple[Mutate, ...]]]:
    """A store with a target's objects, and how each may be damaged."""
    store, target = Store(f"memory://{uuid.uuid4().hex}"), TARGETS[name]
    target.plant(store)
    hurt = {store.find(key)[0] if key.endswith("/") else key: how for key, how in target.hurt.items()}
    return store, hurt
