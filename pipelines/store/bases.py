"""A cache of factors of base weights W0, computed once for every run, snapshot and study that starts from W0.

    bases/<digest of W0>/v<engine>/<name>.safetensors
    bases/<digest of W0>/v<engine>/<name>.json        its size and sha256, written after it
    bases/by-source/<sha256 of a source>/<digest>     empty marker: the stored tensor `source` holds this W0

An entry that is absent, damaged or written by another engine version is computed again and replaced. Two workers that
save the same entry write the same bytes. If the bytes differ, the JSON file does not match the data, and the next load
computes the entry again.
"""

import hashlib
import json
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from opd_ops.geometry import VERSION
from pipelines.store.json_object import parse_json
from pipelines.store.objects import Store
from pipelines.store.tensors import serialise

if TYPE_CHECKING:
    from torch import Tensor

ROOT = "bases"


@dataclass
class BaseCache:
    """The engine's cache (`opd_ops.geometry.base.Cache`) for one worker and one matrix.

    source: name of the stored tensor that W0 was read from, looked up by `find_cached`; empty writes no marker.
    seconds: wall and CPU seconds between each miss and its save, i.e. the time spent on computing missing entries.
    """

    store: Store
    source: str = ""
    seconds: list[float] = field(default_factory=lambda: [0.0, 0.0])
    _missed: dict[tuple[str, str], list[float]] = field(default_factory=dict)

    def load(self, key: str, name: str) -> "dict[str, Tensor] | None":
        """Tensors by name; None if the entry is absent, damaged or no safetensors file."""
        from safetensors import SafetensorError
        from safetensors.torch import load

        place = _place(key, name)
        try:
            facts = parse_json(self.store.read(f"{place}.json"))
            data = self.store.read(f"{place}.safetensors")
            if (len(data), hashlib.sha256(data).hexdigest()) == (facts["size"], facts["sha256"]):
                tensors = load(data)
                self._name(key)
                return tensors
        except (FileNotFoundError, ValueError, LookupError, TypeError, SafetensorError):
            pass
        self._missed[key, name] = self._others()
        return None

    def save(self, key: str, name: str, tensors: "dict[str, Tensor]") -> None:
        place, data = _place(key, name), serialise(tensors)
        self.store.write(f"{place}.safetensors", data)
        facts = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        self.store.write(f"{place}.json", json.dumps(facts).encode())
        self._name(key)
        now = self._others()
        begun = self._missed.pop((key, name), now)
        self.seconds = [total + after - before for total, after, before in zip(self.seconds, now, begun, strict=True)]

    def _others(self) -> list[float]:
        """Wall and CPU time that is not counted yet, so that nested misses are counted once."""
        return [time.perf_counter() - self.seconds[0], time.process_time() - self.seconds[1]]

    def _name(self, key: str) -> None:
        marker = f"{ROOT}/by-source/{_hash_tensors(self.source)}/{key}"
        if self.source and not self.store.exists(marker):
            self.store.write(marker, b"")


def find_cached(store: Store, name: str, sources: set[str]) -> set[str]:
    """The `sources` whose W0 has the entry `name` in the cache of this engine version. Lists names, reads no object."""
    keys = store.find(ROOT)
    end = f"/v{VERSION}/{name}.json"
    digests = {key.split("/")[1] for key in keys if key.endswith(end)}
    markers = (key.split("/") for key in keys if key.startswith(f"{ROOT}/by-source/"))
    marked = {parts[2] for parts in markers if parts[-1] in digests}
    return {source for source in sources if _hash_tensors(source) in marked}


def count_cache_bytes(store: Store) -> int:
    """Size of the whole cache in bytes, over every W0 and engine version."""
    return sum(store.size(key) for key in store.find(ROOT) if key.endswith(".safetensors"))


def _place(key: str, name: str) -> str:
    return f"{ROOT}/{key}/v{VERSION}/{name}"


def _hash_tensors(source: str) -> str:
    return hashlib.sha256(source.encode()).hexdigest()
