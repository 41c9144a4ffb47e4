"""Every kind of bad input: what it is, how it is made and the door it is brought to; `lines` has the answers.

The file is longer than 350 lines because it is a table with a row for each kind.
"""

import io
import json
from collections.abc import Callable
from dataclasses import dataclass, replace

import polars as pl
import torch

from pipelines import lake
from pipelines.runs.set_aside import move_aside
from pipelines.store.objects import Store
from pipelines.store.trajectory import Trajectory
from tests.refusals.lines import LINES
from tests.refusals.scene import RUN, TABLE, Place, Q, flipped, half, packed, renamed, saying, weights

Make = Callable[[Place], object]
Door = str | Callable[[Place], object]  # a command of `opd`, or a call that raises
ONE = "measure --base HERE/base --snapshot 1=HERE/one"
MEASURE = "measure --base HERE/base --name new --workers 0 --snapshot 5=HERE/bad"
HEADER = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}


def opd(place: Place) -> Trajectory:
    return Trajectory(place.store, "tiny.opd", 0)


def nothing(place: Place) -> None:
    """What is made where the input is bad by itself."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """code: exit code of a command. writes: whether the rest of the work is done and kept."""

    group: str
    kind: str
    door: Door
    make: Make = nothing
    code: int = 2
    writes: bool = False

    @property
    def name(self) -> str:
        return f"{self.group}: {self.kind}"

    @property
    def line(self) -> str:
        """What it is answered with."""
        return LINES[self.name]


def _recipes() -> list[Row]:
    from opd_ops import recipe as r
    from opd_ops.tasks.examples import read_examples
    from opd_ops.tasks.registry import build
    from pipelines.runs.trajectories import bases, starts
    from pipelines.runs.trajectories.training import train
    from tests.pipelines.runs.mini import ARCHITECTURE, TASK, arm

    two, one = r.Resources(workers=2), r.Constraint(basis=r.Random(), rank=1)
    reaction = r.Reaction(guard=r.Guard(quantity="stable_rank", reference="mini.rlvr"), action="none")

    confined = lambda path, rank=1: r.Constraint(basis=r.Given(path=path), rank=rank, roles=("q",))
    basis = lambda constraint: lambda p: bases.make_bases(p.store, constraint, 0, weights(0))
    rollout = lambda **changes: lambda place: r.Rollout(prompts=1, max_new_tokens=1, **changes)
    rows = [
        ("a recipe's name that leaves its folder", lambda p: arm("opd", study="../../x")),
        ("a start that leaves the store", lambda p: r.FinalOf(recipe="../../x")),
        ("a basis of a recipe with a control character", lambda p: r.UpdateOf(recipe="a\nb", step=1)),
        ("a learning rate that is NaN", lambda p: r.AdamW(learning_rate=float("nan"))),
        ("a run of no steps", lambda p: r.Horizon(steps=0)),
        ("a snapshot after the end", lambda p: r.Horizon(steps=5, snapshots=(9,))),
        ("an evaluation of nothing", lambda p: r.Evaluation(problems=0)),
        ("an overtime that is neither", lambda p: r.Task(name="chains", overtime="skip")),  # type: ignore[arg-type]
        ("special tokens past the vocabulary", lambda p: starts.load(
            p.store, r.Fresh(architecture=replace(ARCHITECTURE, vocab_size=2)), 0, TASK)),
        ("a sampling temperature that is NaN", rollout(temperature=float("nan"))),
        ("an estimator that has no gradient", lambda p: r.Opd(teacher=None, estimator="k1")),
        ("an unknown estimator", lambda p: r.Opd(teacher=None, estimator="k4")),
        ("a divergence without its parameter", lambda p: r.Opd(teacher=None, divergence="jsd")),
        ("groups of one sample", lambda p: arm("rlvr", rollout=r.Rollout(prompts=1, max_new_tokens=1))),
        ("a constraint of rank 0", lambda p: r.Constraint(basis=r.Random(), rank=0)),
        ("a basis file that is not there", basis(confined("nowhere.safetensors"))),
        ("a basis of too large a rank", basis(confined("x", 21))),
        ("no workers", lambda p: r.Resources(workers=0)),
        ("workers with half a GPU each", lambda p: r.Resources(workers=2, gpus=0.5)),
        ("workers that sleep", lambda p: r.Resources(workers=2, sleep=True)),
        ("workers and a constraint", lambda p: arm("opd", resources=two, constraint=one)),
        ("workers and a reaction", lambda p: arm("opd", resources=two, reaction=reaction)),
        ("workers in one process", lambda p: train(p.store, arm("pre", resources=two), 0, serial=True)),
        ("an unknown task", lambda p: build(r.Task(name="chainz"), None)),
        ("an unknown option of a task", lambda p: build(r.Task(name="chains", options={"operation": 1}), None)),
        ("examples that are not JSON", lambda p: read_examples(str(p.root / "bad/x.jsonl"))),
        ("a recipe that changed under its name", lambda p: opd(p).register(
            {"identity": {"arm": "tiny.opd", "start": {"kind": "final"}}, "fingerprint": "x", "inputs": {}})),
    ]  # fmt: skip
    makes = {"examples that are not JSON": lambda p: p.file("x.jsonl", b"[" * 10_000)}
    return [Row(group="recipe", kind=k, door=d, make=makes.get(k, nothing)) for k, d in rows]


def _commands() -> list[Row]:
    rows = [
        ("command line", "an unknown command", "stduy"),
        ("command line", "a control character in a name", "tables ro\x1b[2Jt"),
        ("command line", "an unknown table", "tables rotations"),
        ("command line", "no base", "measure"),
        ("command line", "no snapshot", "measure --base HERE/base"),
        ("command line", "a snapshot without its step", "measure --base HERE/base --snapshot HERE/one"),
        ("command line", "an empty address", "measure --trajectory="),
        ("command line", "a snapshot with an empty address", "measure --base HERE/base --snapshot 5="),
        ("command line", "the base as a snapshot", "measure --base HERE/base --snapshot 0=HERE/one"),
        ("command line", "a step given twice", f"{ONE} --snapshot 1=HERE/two"),
        ("command line", "two ways to name snapshots", "measure --snapshot 1=HERE/one --trajectory HERE"),
        ("command line", "a rank of 0", f"{MEASURE} --k 0"),
        ("command line", "an unknown role", f"{MEASURE} --roles q,K"),
        ("command line", "an unknown diagnostic", f"{MEASURE} --diagnostics rotations"),
        ("command line", "a name that leaves its folder", f"{MEASURE} --name ../x"),
        ("command line", "a negative number of workers", f"{MEASURE} --workers -1"),
        ("command line", "an option without the one it goes with", f"{MEASURE} --until 5"),
        ("command line", "an interval that is NaN", "measure --trajectory HERE --watch --interval nan"),
        ("study", "an unknown study", "study show tyni"),
        ("study", "an unknown suite", "study run tiny --suite extra"),
        ("study", "an unknown recipe", "study run tiny --recipe tiny.odp"),
        ("study", "a seed that the study has not", "study run tiny --seed 7"),
        ("study", "a seed that is no number", "study run tiny --seed one"),
        ("study", "a report of nothing", "report smollm"),
        ("study", "an arm to replace that the study has not", "study run smollm --replace odp"),
        ("store", "nothing is there", "verify memory://nothing"),
        ("store", "an unknown scheme", "tables --out zzz://bucket"),
        ("store", "credentials in the address", "verify s3://key:secret@bucket/x"),
        ("store", "an address with one slash", "measure --trajectory s3:/bucket/run"),
        ("store", "a control character in the address", "verify memory://a\x00b"),
        ("store", "a chain of file systems", "verify simplecache::memory://x"),
        ("store", "a protocol that is not installed", "verify abfs://x"),
        ("store", "a store that cannot be written", f"{ONE} --name new --workers 0 "
         "--out HERE/one/config.json/store"),
        ("monitor", "no such run", "monitor tiny.nobody --against tiny.opd"),
        ("monitor", "no such reference", "monitor external.mine --against tiny.nobody"),
        ("monitor", "too few references", "monitor external.mine --against tiny.opd"),
        ("monitor", "a reference that leaves the store", "monitor external.mine --against ../../x"),
        ("monitor", "an unknown quantity", "monitor tiny.opd --against tiny.opd --quantity rank"),
        ("monitor", "an option without the one it goes with", "monitor tiny.opd --against x --base HERE/base"),
        ("regime", "a run that is not measured", "regime tiny.nobody"),
        ("export", "a folder that holds something", "export tiny.opd/0 7 HERE/one"),
        ("export", "a folder that is an address", "export tiny.opd/0 7 s3://bucket/x"),
        ("export", "a step that is no step", "export tiny.opd/0 seven HERE/new"),
        ("export", "a step that has no snapshot", "export tiny.opd/0 5 HERE/new"),
        ("export", "a run that leaves the store", "export ../../etc/0 7 HERE/new"),
        ("export", "a run that is not there", "export tiny.nobody/0 7 HERE/new"),
        ("export", "two things at once", "export tiny.opd/0 7 --to memory://other"),
        ("export", "a store to itself", "export tiny.opd/0 --to STORE"),
        ("gc", "an age in words", "gc --age 5days"),
        ("gc", "an unknown policy", "gc --resume everything"),
        ("verify", "a sample of nothing", "verify --sample 0"),
        ("verify", "a seed without a sample", "verify --sample-seed 3"),
        ("verify", "a run without its seed", "verify --run tiny.opd"),
        ("rm", "nobody can answer", "rm tiny.opd/0"),
        ("rm", "a run that is not there", "rm tiny.nobody/0 --yes"),
        ("rm", "a seed that is not there", "rm tiny.opd/3 --yes"),
        ("rm", "a recipe of which nothing is there", "rm tiny.nobody --yes"),
        ("rm", "a run that was not moved aside", "rm tiny.opd/0 --undo"),
        ("rm", "an option without a run", "rm --undo"),
        ("rm", "a number below 1", "rm tiny.opd/0 --undo 0"),
        ("rm", "a number below 1 for a deletion", "rm tiny.opd/0 --delete -1 --yes"),
        ("rm", "a run that leaves the store", "rm ../0 --yes"),
    ]  # fmt: skip
    return [Row(group=g, kind=k, door=d) for g, k, d in rows]


def _checkpoints() -> list[Row]:
    one = {name: w.clone() for name, w in weights(1).items()}
    index = "model.safetensors.index.json"
    single = lambda data: lambda p: p.file("model.safetensors", data, keep=False)
    names = lambda **where: lambda p: p.file(index, json.dumps({"weight_map": where}).encode())
    short = lambda p: p.file("model-0.safetensors", half((p.root / "bad/model-0.safetensors").read_bytes()))
    tokens = lambda text: json.dumps({"model": {"vocab": {token: i for i, token in enumerate(text)}}}).encode()

    def vocabularies(place: Place) -> None:
        place.file("tokenizer.json", tokens("acb"))
        (place.root / "base/tokenizer.json").write_bytes(tokens("abc"))

    overlapping = {"a": HEADER | {"shape": [2], "data_offsets": [0, 8]}, "b": HEADER | {"data_offsets": [4, 8]}}
    rows = [
        ("an absent folder", "measure --base HERE/base --name new --snapshot 5=HERE/gone", nothing),
        ("an empty folder", MEASURE, lambda p: [file.unlink() for file in (p.root / "bad").iterdir()]),
        ("pickled weights", MEASURE, lambda p: p.file("pytorch_model.bin", b"x", keep=False)),
        ("a pickled file", f"{MEASURE}/model.pt", lambda p: p.file("model.pt", b"x")),
        ("an adapter", MEASURE, lambda p: p.file("adapter_model.safetensors", b"x", keep=False)),
        ("an adapter under a model's name", MEASURE, lambda p: p.model({"q.lora_A.weight": torch.ones(2, 2)})),
        ("a shard that is missing", MEASURE, lambda p: (p.root / "bad/model-1.safetensors").unlink()),
        ("a shard cut short", MEASURE, short),
        ("an index that leads away", MEASURE, names(a="../base/model-0.safetensors")),
        ("an index with a line break in it", MEASURE, names(a="a\nb")),
        ("an index that places a tensor wrongly", MEASURE, names(a="model-0.safetensors")),
        ("an index nested 10,000 deep", MEASURE, lambda p: p.file(index, b"[" * 10_000)),
        ("an index that is no text", MEASURE, lambda p: p.file(index, b'{"weight_map": "\xff"}')),
        ("a header that claims 2^60 bytes", MEASURE, single(packed({"a": HEADER}, bytes(4), 2**60))),
        ("a tensor of 2^63 entries", MEASURE, single(packed({"a": HEADER | {"shape": [2**63]}}, bytes(4)))),
        ("a negative offset", MEASURE, single(packed({"a": HEADER | {"data_offsets": [-4, 0]}}, bytes(4)))),
        ("tensors that overlap", MEASURE, single(packed(overlapping, bytes(8)))),
        ("a tensor of another length", MEASURE, single(packed({"a": HEADER | {"dtype": "F64"}}, bytes(4)))),
        ("a key that stands twice", MEASURE, single(packed(b'{"a": {}, "a": {}}'))),
        ("a tensor's name with a line break", MEASURE, single(packed({"a\nb": HEADER}, bytes(4)))),
        ("quantized weights", MEASURE, lambda p: p.model(one | {Q: one[Q].to(torch.float8_e4m3fn)})),
        ("whole numbers alone", MEASURE, lambda p: p.model({"ids": torch.arange(3)})),
        ("a model of another size", MEASURE, lambda p: p.model(one | {Q: torch.ones(12, 20)})),
        ("a model of another family", MEASURE, lambda p: p.model({"h.0.attn.c_attn.weight": torch.ones(4, 12)})),
        ("fused weights without their configuration", MEASURE, lambda p: p.model(
            {"model.layers.0.self_attn.qkv_proj.weight": torch.ones(60, 20)})),
        ("a weight that stands twice", MEASURE, lambda p: p.model(
            {f"model.layers.0.mlp.{n}_proj.weight": torch.ones(s, 4) for n, s in (("gate_up", 4), ("up", 2))})),
        ("tokens in another order", MEASURE, vocabularies),
        ("a configuration that is not JSON", MEASURE, lambda p: p.file("config.json", b"{")),
        ("a hub name that is not cached", "measure --base org/model --snapshot 1=HERE/one", nothing),
        ("a folder without steps in its names", "measure --base HERE/base --trajectory HERE", nothing),
        ("two checkpoints of one step", "measure --base HERE/base --trajectory HERE", lambda p: [
            (p.root / name).mkdir() for name in ("step-1", "checkpoint-1")]),
        ("another base under a name that is taken", "measure --base HERE/one --snapshot 2=HERE/two --name mine",
         nothing),
    ]  # fmt: skip
    found = [Row(group="checkpoint", kind=k, door=d, make=m) for k, d, m in rows]
    holes = lambda value: lambda p: p.model(one | {Q: one[Q].clone().fill_(value)})
    found += [
        Row(group="checkpoint", kind=kind, door=MEASURE, make=make, code=3, writes=True)
        for kind, make in (("a weight that is NaN", holes(torch.nan)), ("a weight that is infinite", holes(torch.inf)))
    ]

    def load(place: Place) -> object:
        from opd_ops.models import load_folder

        return load_folder(str(place.root / "bad"))

    configured = lambda **config: lambda p: p.model(one, config)
    remote = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}
    found += [
        Row(group="checkpoint", kind=kind, door=load, make=make)
        for kind, make in (
            ("a configuration of 10^9 layers", configured(model_type="llama", num_hidden_layers=10**9)),
            ("a configuration of a size that no weight has", configured(model_type="llama", hidden_size=10**9)),
            ("code of its own (trust_remote_code)", configured(model_type="evil", auto_map=remote)),
            ("an unknown architecture", configured(model_type="nonesuch")),
        )
    ]
    return found


def _stored() -> list[Row]:
    manifest, master = (f"{RUN}/step-00000007/{name}" for name in ("manifest.json", "master.safetensors"))
    export, change = "export tiny.opd/0 7 HERE/new", lambda key, how: lambda p: p.change(key, how)
    going = lambda p: Trajectory(p.store, "tiny.rlvr", 2)
    facts, state = (f"runs/tiny.rlvr/seed-2/resume/step-00000007/{n}" for n in ("facts.json", "state.safetensors"))
    again = "export tiny.opd/0 --to memory://refused"
    mine, record = f"{ONE} --name mine --workers 0", "runs/external.mine/seed-0/import.json"
    drawn, told = f"{RUN}/rollouts/steps-00000001-00000007.parquet", f"{RUN}/measured.json"

    def problems(place: Place) -> object:
        from pipelines.runs.geometry.measuring import read_problems

        return read_problems(place.store, opd(place))

    def rollouts(place: Place) -> object:
        from pipelines.store.rollouts import Rollouts

        return Rollouts(place.store, RUN).read(3)

    def narrow(place: Place) -> None:
        buffer = io.BytesIO()
        pl.DataFrame({"recipe": ["tiny.opd"], "seed": ["0"]}).write_parquet(buffer)
        place.store.write(TABLE, buffer.getvalue())

    def taken(place: Place) -> None:
        before = {key: place.store.read(key) for key in place.store.find(RUN)}
        move_aside(place.store, "tiny.opd", 0)
        for key, data in before.items():
            place.store.write(key, data)

    hill = lambda rows, **partition: lambda p: lake.write(p.store, "hill", rows, **partition)
    written = lambda p: lake.read_partition(p.store, "training", recipe="tiny.opd", seed=0)
    parts = [
        ("manifest", "a flipped bit", export, change(manifest, flipped)),
        ("manifest", "cut short", export, change(manifest, half)),
        ("manifest", "a newer layout", export, change(manifest, saying(layout=4))),
        ("manifest", "an older layout", export, change(manifest, saying(layout=0))),
        ("manifest", "no layout", export, change(manifest, saying(layout=None))),
        ("manifest", "a file that leads away", export, change(manifest, renamed)),
        ("manifest", "a field that is missing", export, change(manifest, saying(tensors=None))),
        ("manifest", "its own base", export, change(manifest, saying(base={"step": 7, "digest": "0" * 64}))),
        ("snapshot", "weights with a flipped bit", export, change(master, flipped)),
        ("snapshot", "weights cut short", export, change(master, half)),
        ("snapshot", "weights that are gone", export, lambda p: p.store.remove(master)),
        ("snapshot", "weights of an older step", again, lambda p: p.store.write(
            master, p.store.read(f"{RUN}/step-00000003/master.safetensors"))),
        ("snapshot", "its base is gone", export, lambda p: p.store.remove(f"{RUN}/step-00000000")),
        ("snapshot", "other weights of a committed step", lambda p: opd(p).commit(
            7, {name: w + 1 for name, w in weights(7).items()}, 3), nothing),
        ("run record", "run.json with a flipped bit", again, change(f"{RUN}/run.json", flipped)),
        ("run record", "run.json of a newer layout", "monitor tiny.opd --against tiny.opd",
         change(f"{RUN}/run.json", saying(layout=2))),
        ("run record", "run.json is gone", again, lambda p: p.store.remove(f"{RUN}/run.json")),
        ("run record", "another run of that name at the target", "import STORE-other tiny.opd/0", _other),
        ("run record", "end.json nested 10,000 deep", lambda p: opd(p).end(),
         change(f"{RUN}/end.json", lambda data: b"[" * 10_000)),
        ("run record", "end.json that names no step", lambda p: opd(p).end()["step"],
         change(f"{RUN}/end.json", saying(step=None))),
        ("run record", "import.json of an older layout", mine, change(record, saying(False, layout=1))),
        ("run record", "import.json that is not JSON", mine, change(record, half)),
        ("run record", "measured.json of another kind", problems, change(told, saying(False, problems=3))),
        ("run record", "a run that starts from itself", _tokenizer, nothing),
        ("resume state", "facts with a flipped bit", lambda p: going(p).load_resume(), change(facts, flipped)),
        ("resume state", "another state beside the facts", lambda p: going(p).load_resume(),
         change(state, flipped)),
        ("resume state", "moments that were not kept", lambda p: opd(p).load_moments(3), nothing),
        ("rm", "nobody can answer for a deletion", "rm tiny.opd/0 --delete",
         lambda p: move_aside(p.store, "tiny.opd", 0)),
        ("rm", "a name that is taken again", "rm tiny.opd/0 --undo", taken),
        ("table", "cut short", "tables", change(TABLE, half)),
        ("table", "other values", written, change(TABLE, lambda data: data.replace(b"tiny.opd", b"tiny.sft"))),
        ("table", "a column of another type", written, narrow),
        ("table", "an unknown table", lambda p: lake.scan("rotations", p.store.uri), nothing),
        ("table", "an undeclared column", hill([{"x": 1}], recipe="a", seed=0), nothing),
        ("table", "rollouts with a flipped bit", rollouts, change(drawn, flipped)),
        ("partition", "a recipe that leaves the lake", hill([], recipe="../../x", seed=0),
         nothing),
        ("partition", "a table without its seed", hill([], recipe="x"), nothing),
        ("name", "an object outside the store", lambda p: p.store.read("../../etc/passwd"), nothing),
        ("name", "an absolute path", lambda p: p.store.write("/etc/x", b""), nothing),
        ("name", "a backslash", lambda p: p.store.write("a\\..\\b", b""), nothing),
        ("name", "a line break", lambda p: p.store.write("a\nb", b""), nothing),
        ("name", "NUL", lambda p: p.store.write("a\x00b", b""), nothing),
    ]  # fmt: skip
    found = [Row(group=g, kind=k, door=d, make=m) for g, k, d, m in parts]

    def credentials(place: Place) -> None:
        place.environment["OPD_STORE"] = "s3://AKIA:secret@bucket/x"

    def nobody(place: Place) -> None:
        import socket

        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            place.environment |= {
                "OPD_STORE": "s3://bucket/x",
                "AWS_ENDPOINT_URL": f"http://127.0.0.1:{free.getsockname()[1]}",
                "AWS_ACCESS_KEY_ID": "x",
                "AWS_SECRET_ACCESS_KEY": "y",
            }

    from assets.origin import allowed_hosts

    def elsewhere(place: Place) -> None:
        store = place.environment["OPD_STORE"]
        nobody(place)
        place.environment["OPD_STORE"] = store

    def environment(**values: str) -> Make:
        return lambda p: p.environment.update(
            {name: value.replace("HERE", str(p.root)) for name, value in values.items()}
        )

    hub = "measure --base org/model --snapshot 1=HERE/one"
    variables = [
        ("OPD_STORE with credentials", "verify", credentials),
        ("OPD_STORE of a server that does not answer", "verify", nobody),
        ("a trajectory of a server that does not answer", "measure --trajectory s3://other/run", elsewhere),
        ("OPD_STORE with two colons in its bucket", "verify", environment(OPD_STORE="s3://a::b/c")),
        ("OPD_STORE with one slash", "tables", environment(OPD_STORE="s3:/bucket/x")),
        ("OPD_STORE with a control character", "verify", environment(OPD_STORE="HERE/a\x07b")),
        ("OPD_STORE under a file", "weights", environment(OPD_STORE="HERE/one/config.json/store")),
        ("HF_HUB_CACHE without the model", hub, environment(HF_HUB_CACHE="HERE")),
        ("OPD_HOSTS that names no host", lambda p: allowed_hosts({"OPD_HOSTS": "https://a.example"}), nothing),
    ]
    return found + [Row(group="environment", kind=k, door=d, make=m) for k, d, m in variables]


def _other(place: Place) -> None:
    """At another store, a run of the same name and another identity."""
    other = Store(f"{place.store.uri}-other")
    for key in place.store.find(RUN):
        other.write(key, place.store.read(key))
    other.write(f"{RUN}/run.json", saying(identity={"arm": "another"})(other.read(f"{RUN}/run.json")))


def _tokenizer(place: Place) -> object:
    from opd_ops.recipe import FinalOf
    from pipelines.runs.trajectories.starts import tokenizer_folder

    start = {"kind": "final", "recipe": "tiny.opd", "seed": 0}
    looped = Store(f"{place.store.uri}-looped")
    looped.write(f"{RUN}/run.json", saying(identity={"start": start})(place.store.read(f"{RUN}/run.json")))
    return tokenizer_folder(looped, FinalOf(recipe="tiny.opd", seed=0), 0)


def rows() -> list[Row]:
    """All of them."""
    return [*_commands(), *_recipes(), *_stored(), *_checkpoints()]
