"""A run's trajectory on every backend, and as other clients and writers of the same run see it."""

import uuid

import pytest
import torch

from pipelines.store.objects import Store
from pipelines.store.trajectory import Trajectory
from tests.pipelines.store.racing import race

FACTS = {"identity": {"arm": "opd"}, "fingerprint": "f", "inputs": {"start": "0"}, "provenance": {"host": "here"}}


def weights(seed=0):
    """Also what arithmetic would change: -0, NaN with a payload, subnormals, infinities, and an empty tensor."""
    generator = torch.Generator().manual_seed(seed)
    bits = torch.tensor([-(2**31), 0x7FC12345, 1, 0x7F800000, -1], dtype=torch.int32)
    return {
        "a.weight": torch.randn(40, 30, generator=generator),
        "b.weight": torch.randn(7, generator=generator).bfloat16(),
        "odd": bits.view(torch.float32),
        "none": torch.empty(0, 3),
    }


def same(found, expected):
    """Bit for bit."""
    as_bytes = lambda tensor: (tensor.dtype, tensor.shape, tensor.contiguous().view(torch.uint8).tolist())
    return found.keys() == expected.keys() and all(as_bytes(found[n]) == as_bytes(t) for n, t in expected.items())


def read(refs):
    return {name: ref.read() for name, ref in refs.items()}


class Histories:
    """`store` is an empty one. What one trajectory writes, another over the same store reads."""

    @pytest.fixture
    def here(self, store):
        return Trajectory(store, "tiny.opd", 3)

    @pytest.fixture
    def there(self, store):
        type(store._filesystem[0]).clear_instance_cache()
        return Trajectory(Store(store.uri), "tiny.opd", 3)

    def test_snapshots_come_back_bit_for_bit(self, here, there):
        for step, parent in ((0, None), (5, 0), (10, 5)):
            assert there.steps() == [s for s in (0, 5, 10) if s < step]
            here.commit(step, weights(step), parent)
            assert same(read(there.refs(step)), weights(step))
        assert there.verify(0) == there.verify(5) == there.verify(10) == []
        assert [there.manifest(10)[key] for key in ("step", "parent")] == [10, 5]

    def test_a_run_goes_on_where_another_client_left_it(self, here, there):
        here.register(FACTS)
        here.commit(0, weights(0), None)
        here.save_resume(0, weights(100), {"rows": [0.1 + 0.2]})
        assert there.register(FACTS | {"provenance": {"host": "there"}}) == FACTS
        step, tensors, facts = there.load_resume()
        assert (step, facts) == (0, {"rows": [0.1 + 0.2]}) and same(tensors, weights(100))
        there.commit(4, weights(4), 0)
        there.save_resume(4, weights(104), {})
        assert here.load_resume()[0] == 4 and here.steps() == [0, 4]
        there.finish({"step": 4})
        assert here.end() == {"step": 4} and here.load_resume() is None

    def test_writers_of_the_same_weights_all_go_on(self, here, there):
        digests = race(*[lambda run=run: run.commit(0, weights(), None) for run in (here, there, here)])
        assert digests == [here.digest(0)] * 3
        assert same(read(here.refs(0)), weights()) and here.verify(0) == []

    def test_of_writers_of_other_weights_one_goes_on_and_the_others_stop_with_one_line(self, here, there):
        said = race(*[lambda s=s: (here, there)[s % 2].commit(0, weights(s), None) for s in range(3)])
        stopped = [error for error in said if isinstance(error, ValueError)]
        assert len(stopped) == 2 and said.count(here.digest(0)) == 1
        for error in stopped:
            assert str(error).startswith(f"{here.prefix}/step-00000000 holds other weights (")
            assert str(error).endswith("use another OPD_STORE") and "\n" not in str(error)
        winner = next(seed for seed, digest in enumerate(said) if digest == here.digest(0))
        assert same(read(there.refs(0)), weights(winner)) and there.verify(0) == []

    def test_of_racing_registrations_one_is_kept(self, here, there):
        facts = [FACTS | {"provenance": {"host": str(host)}} for host in range(3)]
        kept = race(*[lambda f=f, i=i: (here, there)[i % 2].register(f) for i, f in enumerate(facts)])
        assert all(found == here.run() for found in kept) and here.run() in facts
        others = race(*[lambda f=f: here.register(f | {"fingerprint": "g", "identity": {"arm": "sft"}}) for f in facts])
        assert all("another recipe (arm:" in str(error) for error in others) and here.run() in facts


class TestFiles(Histories):
    @pytest.fixture
    def store(self, tmp_path):
        return Store(f"file://{tmp_path}/a store")


class TestMemory(Histories):
    @pytest.fixture
    def store(self):
        return Store(f"memory://{uuid.uuid4().hex}")


class TestS3(Histories):
    @pytest.fixture
    def store(self, s3):
        return s3
