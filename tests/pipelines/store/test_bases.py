"""Base factors kept under the digest of W0: what comes back, what is not believed, and workers that race."""

import hashlib
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from opd_ops.geometry import base as engine
from opd_ops.geometry.suite import Matrix, Settings
from pipelines.store import bases
from pipelines.store.bases import BaseCache, count_cache_bytes, find_cached
from tests.pipelines.store.conftest import draw

KEY, NAME = "0123abcd" * 8, "factors-96"
PLACE = f"bases/{KEY}/v{bases.VERSION}/{NAME}"


def tensors(seed=0):
    return {"u": draw(5, 3, seed=seed).double(), "guard": draw(5, 0).bfloat16(), "facts": torch.tensor([0.5, 1.0])}


def same(one, other):
    return one is not None and one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_what_is_saved_comes_back_on_every_store(any_store):
    cache = BaseCache(any_store)
    assert cache.load(KEY, NAME) is None
    cache.save(KEY, NAME, tensors())
    assert same(BaseCache(any_store).load(KEY, NAME), tensors())
    assert cache.load(KEY, "factors-128") is None and cache.load("f" * 64, NAME) is None
    assert count_cache_bytes(any_store) == any_store.size(f"{PLACE}.safetensors")


def test_another_engine_computes_its_own(near, monkeypatch):
    BaseCache(near).save(KEY, NAME, tensors())
    monkeypatch.setattr(bases, "VERSION", bases.VERSION + 1)
    assert BaseCache(near).load(KEY, NAME) is None


@pytest.mark.parametrize("part", ["safetensors", "json"])
@pytest.mark.parametrize("damage", ["truncated", "flipped", "emptied", "foreign", "absent"])
def test_what_is_damaged_is_absent_until_it_is_saved_again(part, damage, near):
    cache = BaseCache(near)
    cache.save(KEY, NAME, tensors())
    key = f"{PLACE}.{part}"
    data = near.read(key)
    if damage == "absent":
        near.remove(key)
    else:
        flipped = data[:-9] + bytes([data[-9] ^ 1]) + data[-8:]
        near.write(key, {"truncated": data[:-9], "flipped": flipped, "emptied": b"", "foreign": b"[1]"}[damage])
    assert cache.load(KEY, NAME) is None
    cache.save(KEY, NAME, tensors())
    assert same(cache.load(KEY, NAME), tensors())


def test_a_description_of_something_unreadable_is_not_believed(near):
    near.write(f"{PLACE}.safetensors", b"not tensors")
    facts = {"size": 11, "sha256": hashlib.sha256(b"not tensors").hexdigest()}
    near.write(f"{PLACE}.json", json.dumps(facts).encode())
    assert BaseCache(near).load(KEY, NAME) is None


def test_workers_that_save_the_same_thing_at_once(files):
    begin = threading.Barrier(8)

    def work(_):
        cache = BaseCache(files, "a/b")
        begin.wait()
        for _ in range(20):
            found = cache.load(KEY, NAME)
            assert found is None or same(found, tensors())
            cache.save(KEY, NAME, tensors())
        return same(cache.load(KEY, NAME), tensors())

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))
    assert len(files.find("bases")) == 3


def test_workers_that_save_different_things_never_mix_them(files):
    begin = threading.Barrier(4)

    def work(seed):
        cache = BaseCache(files)
        begin.wait()
        for _ in range(20):
            cache.save(KEY, NAME, tensors(seed))
            found = cache.load(KEY, NAME)
            assert found is None or any(same(found, tensors(other)) for other in range(4))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))


def test_the_sources_whose_base_is_there_are_known(near):
    BaseCache(near, "stamp/q").save(KEY, NAME, tensors())
    BaseCache(near, "stamp/k").save(KEY, "masks", tensors())
    BaseCache(near, "copy/q").load(KEY, NAME)
    BaseCache(near).save("f" * 64, NAME, tensors())
    assert find_cached(near, NAME, {"stamp/q", "stamp/v", "copy/q"}) == {"stamp/q", "copy/q"}
    assert find_cached(near, "factors-128", {"stamp/q"}) == set()


def test_what_is_computed_within_another_counts_once(near):
    cache, begun = BaseCache(near), time.perf_counter()
    cache.load(KEY, "masks")
    cache.load(KEY, NAME)
    time.sleep(0.05)
    cache.save(KEY, NAME, tensors())
    cache.save(KEY, "masks", tensors())
    cache.save(KEY, "unasked", tensors())
    assert 0.05 < cache.seconds[0] <= time.perf_counter() - begun


def test_the_engine_factors_a_base_once(files, monkeypatch):
    w0 = (draw(520, 530) * torch.logspace(1, -1, 520)[:, None]).bfloat16()
    settings = Settings(k=(4,), tables=("rotation", "localization"))

    def rows(cache):
        matrix = Matrix(w0, settings=settings, projection=True, cache=cache)
        return matrix.snapshot(1, (w0 * (1 + 1e-2 * draw(520, 530, seed=1))).bfloat16()).rows

    first = BaseCache(files, "x")
    found = rows(first)
    assert all(seconds > 0 for seconds in first.seconds)
    monkeypatch.setattr(engine, "factorise_base", None)
    monkeypatch.setattr("opd_ops.geometry.suite.factorise", None)
    second = BaseCache(files, "x")
    assert rows(second) == found
    assert second.seconds == [0.0, 0.0]
