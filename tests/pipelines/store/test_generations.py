"""Records that several writers replace, on every backend."""

import pytest

from pipelines.store.generations import NONE, Generations
from pipelines.store.objects import Store
from tests.pipelines.store.racing import race

STEM = "runs/r/seed-0/import"


@pytest.fixture
def records(any_store):
    return Generations(any_store, STEM)


def test_the_newest_counts_and_the_older_go(records):
    assert records.newest() == NONE
    with pytest.raises(FileNotFoundError):
        records.read()
    for number in range(3):
        assert records.append(b"%d" % number, number - 1) == number
        assert records.read() == (number, b"%d" % number)
    assert records.store.find("") == [f"{STEM}-00000002.json"]


def test_what_earlier_versions_wrote_is_the_first_generation(records):
    records.store.write(f"{STEM}.json", b"old")
    assert records.read() == (0, b"old")
    assert records.append(b"new", 0) == 1
    assert records.store.find("") == [f"{STEM}-00000001.json"]


def test_names_that_are_only_like_it_are_none_of_it(records):
    for name in ("import-1.json", "import-00000009.json.bak", "import-00000009", "imports.json", "import-x.json"):
        records.store.write(f"runs/r/seed-0/{name}", b"")
    assert records.newest() == NONE


def test_of_writers_that_read_the_same_one_replaces_it(records):
    records.append(b"first", NONE)
    outcomes = race(*(lambda mine=mine: records.append(mine, 0) for mine in (b"a", b"b", b"c", b"d")))
    (won,) = [i for i, outcome in enumerate(outcomes) if outcome == 1]
    assert all(isinstance(outcome, FileExistsError) for i, outcome in enumerate(outcomes) if i != won)
    assert records.read() == (1, b"abcd"[won : won + 1])


def test_a_writer_that_slept_while_its_number_came_and_went_is_told(records):
    for number in range(3):
        records.append(b"%d" % number, number - 1)
    with pytest.raises(FileExistsError):
        records.append(b"late", 0)
    assert records.read() == (2, b"2")
    assert records.append(b"next", 2) == 3
    assert records.store.find("") == [f"{STEM}-00000003.json"]


def test_a_reader_whose_generation_is_replaced_reads_the_next(records, monkeypatch):
    records.append(b"first", NONE)
    read, replaced = Store.read, []

    def overtaken(store, key, *where):
        if not replaced:
            replaced.append(records.append(b"second", 0))
        return read(store, key, *where)

    monkeypatch.setattr(Store, "read", overtaken)
    assert records.read() == (1, b"second")
