"""What bad input is given to: a furnished store, checkpoints in folders, and the doors that people use."""

import contextlib
import hashlib
import io
import json
import os
import re
import shutil
import struct
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from safetensors.torch import save_file

from pipelines import cli
from pipelines.runs.external import imports
from pipelines.store import checksum
from pipelines.store.objects import Store
from pipelines.store.tensors import serialise
from pipelines.studies.study import Measurement
from tests.pipelines.maintenance.planted import furnish

Q, NORM = "model.layers.0.self_attn.q_proj.weight", "model.norm.weight"
HIDDEN = ("OPD_STORE", "DAGSTER_HOME", "RAY_ADDRESS", "HF_HOME", "HF_HUB_CACHE", "AWS_ENDPOINT_URL")
RUN = "runs/tiny.opd/seed-0"
TABLE = "lake/training/recipe=tiny.opd/seed=0/part-0.parquet"


def weights(step: int) -> dict[str, Any]:
    draw = lambda seed: torch.randn(24, 20, generator=torch.Generator().manual_seed(seed))
    return {Q: draw(1) + 0.01 * step * draw(2), NORM: torch.ones(20) + 0.01 * step}


def packed(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    """A safetensors file with this header, which may claim another length than it has."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


@cache
def furnished() -> dict[str, bytes]:
    """The objects of the store: tiny.opd seed 0, complete; tiny.rlvr seed 2, in training; the import external.mine."""
    store = Store(f"memory://{uuid.uuid4().hex}")
    furnish(store)
    for step in (0, 1):
        for name, data in folder(step).items():
            store.write(f"ckpt/{step}/{name}", data)
    asked = Measurement(tables=("update_norm", "locking"))
    ref = f"{store.uri}/ckpt"
    imports.measure_import(imports.plan_import(store, f"{ref}/0", [(1, f"{ref}/1")], asked, "mine"), serial=True)
    return {key: store.read(key) for key in store.find("") if not key.startswith("ckpt/")}


@cache
def folder(step: int) -> dict[str, bytes]:
    """The files of a checkpoint, in two shards."""
    found, shards = weights(step), ((Q,), (NORM,))
    files = {
        f"model-{i}.safetensors": serialise({name: found[name] for name in names}) for i, names in enumerate(shards)
    }
    where = {name: f"model-{i}.safetensors" for i, names in enumerate(shards) for name in names}
    return files | {
        "model.safetensors.index.json": json.dumps({"weight_map": where}).encode(),
        "config.json": b'{"tie_word_embeddings": true}',
    }


@dataclass
class Place:
    """A fresh copy of all that for one kind of bad input."""

    root: Path
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.store = Store(f"memory://{uuid.uuid4().hex}")
        for key, data in furnished().items():
            self.store.write(key, data)
        self.environment = {"OPD_STORE": self.store.uri, "HF_HUB_CACHE": f"{self.root}/hub"} | self.environment
        for name, step in (("base", 0), ("one", 1), ("two", 2), ("bad", 1)):
            (self.root / name).mkdir()
            for file, data in folder(step).items():
                (self.root / name / file).write_bytes(data)

    def objects(self) -> dict[str, bytes]:
        """Everything that must be as it was."""
        kept = {key: self.store.read(key) for key in self.store.find("")}
        return kept | {str(p): p.read_bytes() for p in sorted(self.root.rglob("*")) if p.is_file()}

    def change(self, key: str, change: Callable[[bytes], bytes]) -> None:
        """Damage an object of the store."""
        self.store.write(key, change(self.store.read(key)))

    def file(self, name: str, data: bytes, keep: bool = True) -> None:
        """Write into the folder `bad`, of which nothing else stays unless `keep`."""
        if not keep:
            shutil.rmtree(self.root / "bad")
        (self.root / "bad" / name).parent.mkdir(parents=True, exist_ok=True)
        (self.root / "bad" / name).write_bytes(data)

    def model(self, tensors: Mapping[str, Any], config: Any = None) -> None:
        """The folder `bad` as one file of these tensors."""
        shutil.rmtree(self.root / "bad")
        (self.root / "bad").mkdir()
        save_file(dict(tensors), self.root / "bad/model.safetensors", metadata={"format": "pt"})
        self.file("config.json", json.dumps(config or {"tie_word_embeddings": True}).encode())

    def shown(self, line: str) -> str:
        """A line without what differs from one place to the next."""
        line = line.replace(self.store.uri, "STORE").replace(str(self.root), "HERE")
        return re.sub("memory://[0-9a-f]{32}", "STORE", line)

    def opd(self, *arguments: str) -> tuple[int, str]:
        """The exit code of a command, and what it says on stderr."""
        out, err = io.StringIO(), io.StringIO()
        given = [text.replace("HERE", str(self.root)).replace("STORE", self.store.uri) for text in arguments]
        nobody = mock.patch("sys.stdin", io.StringIO())  # who answers no question
        with self.inside(), nobody, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                code = cli.main(given)
            except SystemExit as ended:
                code = int(ended.code or 0)
        return code, err.getvalue()

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """In the folder, with the place's environment and none of this process's.

        Only what differs is set and taken back: a thread of a library that asks C for a variable while the whole
        environment is made anew has crashed the process.
        """
        before, where = dict(os.environ), Path.cwd()
        for name in HIDDEN:
            os.environ.pop(name, None)
        os.environ.update(self.environment)
        os.chdir(self.root)
        if (s3fs := sys.modules.get("s3fs")) is not None:  # whose clients keep the credentials of their first use
            s3fs.S3FileSystem.clear_instance_cache()
        try:
            yield
        finally:
            os.chdir(where)
            for name in os.environ.keys() - before.keys():
                del os.environ[name]
            os.environ.update({name: value for name, value in before.items() if os.environ.get(name) != value})


def flipped(data: bytes) -> bytes:
    """One bit in the middle."""
    return data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1 :]


def half(data: bytes) -> bytes:
    return data[: len(data) // 2]


def saying(sealed: bool = True, **fields: Any) -> Callable[[bytes], bytes]:
    """Other fields (None: without), sealed again or without a seal."""

    def change(data: bytes) -> bytes:
        facts = json.loads(data)
        facts.pop(checksum.FIELD, None)
        facts = {name: value for name, value in (facts | fields).items() if value is not None}
        return (json.dumps(checksum.add_checksum(facts) if sealed else facts, indent=1, sort_keys=True) + "\n").encode()

    return change


def renamed(data: bytes) -> bytes:
    """A manifest whose first tensor lies in a file elsewhere, sealed again."""
    facts = json.loads(data)
    facts["files"]["../../../../etc/x.safetensors"] = {"size": 9, "sha256": hashlib.sha256(b"").hexdigest()}
    return saying(files=facts["files"])(data)
