"""`opd verify` and `opd gc`."""

import os
import time

import pytest

from pipelines.cli.gc import parse_age
from pipelines.cli.verify import sample_of
from pipelines.maintenance import sweeping
from pipelines.store.objects import Store, default_uri
from tests.pipelines.maintenance.planted import contents, furnish

RUN = "runs/tiny.opd/seed-0"
LAST = f"{RUN}/step-00000007/master.safetensors"


@pytest.fixture
def store(here):
    """The default store, furnished."""
    found = Store(default_uri())
    furnish(found)
    return found


def test_a_whole_store_is_one_line_and_0(opd, store):
    code, out, err = opd("verify", "--deep")
    assert (code, err, out.count("\n")) == (0, "", 1)
    assert out.startswith(f"{store.uri}: {len(store.find(''))} objects, ") and out.endswith(" s: nothing is wrong\n")
    assert "; 8 of 8 snapshots read again, " in out
    assert opd("verify", store.path(""))[0] == opd("verify", store.uri)[0] == 0


def test_what_is_wrong_is_named_by_kind_with_the_remedy_and_5(opd, store):
    store.write(LAST, store.read(LAST)[:-1] + b"x")
    store.write("notes.txt", b"")
    store.remove(f"{RUN}/step-00000003/master.safetensors")
    before = contents(store)
    code, out, err = opd("verify")
    assert (code, err) == (5, "") and contents(store) == before
    lines = out.splitlines()
    assert lines[0] == "damaged: not what was written"
    assert lines[1].startswith(f"  {LAST} has SHA-256 ") and "opd import URI RUN" in lines[1]
    assert lines[2] == "missing: named by others, and not there"
    assert lines[3].startswith(f"  {RUN}/step-00000003/master.safetensors is named by its manifest: ")
    assert lines[4:6] == [
        "foreign: not explained by the layout of a store",
        "  notes.txt is no object of this project: move it out of the store",
    ]
    assert len(lines) == 7 and lines[6].endswith(": 1 damaged, 1 missing, 1 foreign")


def test_one_run_alone(opd, store):
    store.write(LAST, b"")
    assert opd("verify", "--run", "tiny.rlvr/2")[0] == 0
    code, out, _ = opd("verify", "--run", "tiny.rlvr/2", "--run", "tiny.opd/seed-0")
    assert code == 5 and LAST in out


def test_a_sample_says_how_to_draw_it_again(opd, store):
    seeds = set()
    for _ in range(3):
        code, out, _ = opd("verify", "--sample", "3")
        assert code == 0
        seeds.add(out.partition("(--sample-seed ")[2].partition(")")[0])
    assert len(seeds) > 1
    store.write(LAST, b"")
    once = [opd("verify", "--sample", "20%", "--sample-seed", n)[0] for n in range(12)]
    assert once == [opd("verify", "--sample", "0.2", "--sample-seed", n)[0] for n in range(12)] and set(once) == {0, 5}


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--sample", "0"], "--sample 0 is neither a number of objects nor a share; write 50, 0.1 or 10%"),
        (["--sample", "-3"], "--sample -3 is neither"),
        (["--sample", "nan"], "--sample nan is neither"),
        (["--sample", "101%"], "--sample 101% is neither"),
        (["--sample-seed", "3"], "--sample-seed 3 goes with --sample"),
        (["--run", "tiny.opd"], "--run tiny.opd names no seed; write RECIPE/SEED, as in tiny.opd/0"),
        (["--run", "../x/0"], "is no name"),
        (["--run", "tiny.opd/7"], "holds no run tiny.opd seed 7; it has seed 0"),
        (["none"], "holds nothing; check its address, or OPD_STORE"),
    ],
)
def test_bad_input_is_one_line(refused, store, arguments, line):
    assert line in refused("verify", *arguments)


def test_samples_are_numbers_or_shares():
    assert [sample_of(text) for text in ("1", "50", "0.5", "10%", "1.0", "100%")] == [1, 50, 0.5, 0.1, 1.0, 1.0]
    assert isinstance(sample_of("1"), int) and isinstance(sample_of("1.0"), float)


def left(store, *, old=True):
    """A killed write and weights without a manifest, of two days ago."""
    keys = [f"{RUN}/step-00000099/master.safetensors", f"{RUN}/.end.json.{'0' * 32}"]
    for key in keys:
        store.write(key, b"123")
    if old:
        for key in store.find(""):
            os.utime(store.path(key), (time.time() - 172800,) * 2)
    return sorted(keys)


def test_a_dry_run_prints_what_a_run_then_deletes(opd, store, monkeypatch):
    monkeypatch.setattr(sweeping, "WATCH", 0.0)
    whole = contents(store)
    keys = left(store)
    before = contents(store)
    code, dry, err = opd("gc", "--dry-run")
    assert (code, err) == (0, "") and contents(store) == before
    code, out, err = opd("gc")
    assert (code, err) == (0, "") and contents(store) == whole
    assert (
        [line.split()[2] for line in dry.splitlines()[:-1]]
        == keys
        == [line.split()[1] for line in out.splitlines()[:-1]]
    )
    assert dry.replace("would delete", "deleted").replace("would be deleted", "deleted") == out
    assert out.splitlines()[-1] == f"{store.uri}: 2 objects, 6 B, deleted (older than 24h, resume finished)"
    assert opd("verify", "--deep")[0] == 0
    assert opd("gc")[1].startswith(f"{store.uri}: 0 objects, 0 B, deleted")


def test_what_is_young_stays_unless_a_younger_age_is_given(opd, store):
    keys = left(store, old=False)
    assert opd("gc", "--age", "30m")[1].startswith(f"{store.uri}: 0 objects")
    assert sum(key in opd("gc", "--dry-run", "--age", "0")[1] for key in keys) == 2


def test_the_last_state_of_a_run_goes_only_where_all_do(opd, store):
    left(store)
    state = "runs/tiny.rlvr/seed-2/resume/step-00000007/state.safetensors"
    assert state not in opd("gc", "--dry-run")[1] + opd("gc", "--dry-run", "--resume", "keep")[1]
    assert state in opd("gc", "--dry-run", "--resume", "all", "--age", "1d")[1]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--age", "soon"], "--age soon is no duration; write 30m, 24h or 7d"),
        (["--age", "5"], "--age 5 is no duration"),
        (["--resume", "none"], "resume policy 'none' is unknown; use one of finished, all, keep"),
        (["none"], "holds nothing"),
    ],
)
def test_bad_input_of_a_sweep_is_one_line(refused, store, arguments, line):
    assert line in refused("gc", *arguments)


def test_durations():
    assert [parse_age(text) for text in ("0", "90s", "30m", "1.5h", "2d", "1w")] == [0, 90, 1800, 5400, 172800, 604800]
