"""Two writers at once, some times on every backend; `python -m tests.chaos.races` does it a thousand times."""

import uuid
from contextlib import nullcontext

import pytest

from pipelines.store.generations import Generations
from pipelines.store.objects import Store
from tests.chaos import measuring
from tests.chaos.races import KINDS, Writers, payload, weights


@pytest.fixture(scope="module")
def writers():
    with Writers() as writers:
        yield writers


class Races:
    """`store` is an empty one; `races` are as many as a test has time for, `measuring` the kinds of calls."""

    races: int
    measuring: tuple[str, ...]

    @pytest.mark.parametrize("kind", KINDS)
    def test_one_of_two_writers_wins_and_nothing_mixes(self, kind, store, writers):
        row = writers.race(store, kind, self.races)
        assert (row.races, row.right, row.mixed) == (self.races, self.races, 0)
        assert row.clean and row.backend == store.uri.partition("://")[0]

    def test_calls_that_measure_other_snapshots_of_one_name_lose_none(self, store, writers):
        for kind in self.measuring:
            with Writers(3) if kind == "three" else nullcontext(writers) as calls:
                row = measuring.race(calls, store, kind, 2)
            assert (kind, row.races, row.right, row.mixed) == (kind, 2, 2, 0)


class TestFiles(Races):
    races = 50
    measuring = ("two", "watch")

    @pytest.fixture
    def store(self, tmp_path):
        return Store(f"file://{tmp_path}")


class TestMemory(Races):
    races = 50
    measuring = ("two", "three")

    @pytest.fixture
    def store(self):
        return Store(f"memory://{uuid.uuid4().hex}")


class TestS3(Races):
    races = 25
    measuring = ("two",)

    @pytest.fixture
    def store(self, s3):
        return s3


def test_a_store_that_lets_two_win_is_found_out(monkeypatch, writers):
    monkeypatch.setattr(Store, "create", Store.write)
    row = writers.race(Store(f"memory://{uuid.uuid4().hex}"), "create", 5)
    assert (row.right, row.clean) == (0, False)


def test_a_store_that_mixes_two_writers_is_found_out(monkeypatch, writers):
    read = Store.read
    monkeypatch.setattr(Store, "read", lambda self, key, *where: read(self, key, *where)[:-1] + b"?")
    row = writers.race(Store(f"memory://{uuid.uuid4().hex}"), "create", 5)
    assert (row.mixed, row.clean) == (5, False)


def test_tables_of_another_call_are_found_out(monkeypatch, writers):
    monkeypatch.setattr(Generations, "append", lambda self, data, after: self.store.write(self.key(0), data) or 0)
    row = measuring.race(writers, Store(f"memory://{uuid.uuid4().hex}"), "two", 2)
    assert row.mixed == 2 and not row.clean


def test_writers_write_what_differs():
    assert len({payload(race, writer) for race in range(3) for writer in range(2)}) == 6
    assert not any((weights(0)[name] == weights(1)[name]).any() for name in weights(0))
