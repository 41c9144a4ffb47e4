"""Stores that take no writes: what is there already is answered all the same, and nothing tries to write."""

import errno

import pytest

from pipelines import lake
from pipelines.runs.verdicts import reporting
from pipelines.store.objects import Store, default_uri
from tests.pipelines.cli.conftest import save, weights
from tests.pipelines.disks import Disk, mounted, read_only
from tests.pipelines.regimes.conftest import references, tables
from tests.pipelines.runs.planted import plant


@pytest.fixture
def sealed(monkeypatch):
    """sealed(): from then on every write of this process is refused, as a read-only file system does."""
    return lambda: Disk(broken=errno.EROFS).install(monkeypatch)


def test_what_is_measured_already_is_said_on_a_real_read_only_file_system(opd, here, prefix, tmp_path):
    (here / ".opd").mkdir()
    asked = ("measure", "--trajectory", prefix, "--name", "mine", "--workers", 0)
    with mounted(here / ".opd/store", 8192) as folder:
        assert opd(*asked)[0] == 0
        read_only(folder)
        try:
            code, out, err = opd(*asked)
            assert (code, err) == (0, "") and "external.mine: steps 100, 200 were measured already" in out
            assert "page: " in out and "note: " not in out
            for command in (("tables",), ("verify",), ("plan", *asked[1:])):
                assert opd(*command)[::2] == (0, "")
            watch = ("--watch", "--until", 200, "--interval", 0.05)
            code, out, err = opd(*asked, *watch)
            assert (code, err) == (0, "") and "step 200 was measured already" in out and "note: " not in out
            another = save(tmp_path / "at-300", weights(300))
            code, out, err = opd(
                "measure", "--base", prefix / "checkpoint-0", "--snapshot", f"300={another}", "--name", "mine"
            )
            assert code == 2 and err.count("\n") == 1 and "cannot be written (Read-only file system)" in err
        finally:
            read_only(folder, False)


def test_a_page_that_would_be_another_is_left_with_a_note(opd, prefix, sealed, monkeypatch):
    asked = ("measure", "--trajectory", prefix, "--name", "mine", "--workers", 0)
    opd(*asked)
    store = Store(default_uri())
    before = store.read(reporting.report_key("external.mine"))
    monkeypatch.setattr(reporting, "commit", lambda: "another commit")
    sealed()
    code, out, err = opd(*asked)
    assert (code, err) == (0, "") and store.read(reporting.report_key("external.mine")) == before
    assert "note: the report is left as it is, since the store takes no writes (" in out


def test_a_page_without_its_inputs_is_right_where_nothing_can_be_written(opd, prefix, sealed):
    """As an earlier version left it: it is drawn, is the same, and is told as it is."""
    asked = ("measure", "--trajectory", prefix, "--name", "mine", "--workers", 0)
    said = opd(*asked)
    Store(default_uri()).remove(reporting.inputs_key("external.mine"))
    disk = sealed()
    code, out, err = opd(*asked)
    assert (code, err) == (0, "") and "note: " not in out
    assert out.splitlines()[-2:] == said[1].splitlines()[-2:] and disk.refused == 1


def test_what_a_watched_prefix_brings_is_refused_by_a_store_that_takes_no_writes(opd, prefix, sealed):
    asked = ("measure", "--trajectory", prefix, "--name", "mine", "--workers", 0)
    opd(*asked)
    sealed()
    watch = ("--watch", "--interval", 0.05)
    assert opd(*asked, *watch, "--until", 200)[::2] == (0, "")
    save(prefix / "checkpoint-300", weights(300))
    code, _, err = opd(*asked, *watch, "--until", 300)
    assert code == 2 and err.count("\n") == 1 and "cannot be written (Read-only file system)" in err


def test_a_regime_that_is_kept_already_is_said_again(opd, here, sealed):
    store = Store(default_uri())
    for name, frame in tables(references()).items():
        for (recipe, seed), part in frame.collect().partition_by("recipe", "seed", as_dict=True).items():
            lake.write(store, name, part, recipe=recipe, seed=seed)
    first, other = (("regime", "tiny.rlvr", "--seed", 2, *more) for more in ((), ("--step", 32)))
    said = [opd(*first), opd(*other)]
    disk = sealed()
    assert [opd(*first), opd(*other)] == said and disk.refused == 0
    assert [code for code, *_ in said] == [0, 0]


def test_a_run_that_was_monitored_is_judged_again(opd, here, prefix, sealed):
    store = Store(default_uri())
    for seed in range(3):
        plant(store, "s.ref", seed)
    asked = ("monitor", "s.ref", "--against", "s.ref", "--seed", 1)
    said = opd(*asked)
    disk = sealed()
    assert opd(*asked) == said and disk.refused == 0 and said[0] in (0, 4)
