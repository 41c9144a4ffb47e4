"""`opd plan`: what is said before any work, and that it is none."""

import re

import pytest

from pipelines.cli.plan import format_bytes


def plan(opd, folders, *arguments, steps=(100, 200)):
    given = [part for step in steps for part in ("--snapshot", f"{step}={folders[step]}")]
    return opd("plan", "--base", folders[0], *given, "--name", "mine", *arguments)


def test_what_measuring_would_cost_is_said_by_role_and_nothing_is_written(opd, folders, here):
    code, told, err = plan(opd, folders, "--workers", 2)
    assert (code, err) == (0, "")
    assert list(here.iterdir()) == []
    lines = [re.split(r"  +", line) for line in told.splitlines()]
    table = {line[0]: line[1:] for line in lines if line[0] in ("q", "norm", "total")}
    assert [table[role][0] for role in ("q", "norm", "total")] == ["1", "1", "2"]
    # Three weights of f32, and all of them again for nulls.
    assert (table["q"][1], table["norm"][1]) == ("11.5 kB", "240 B")
    for words in ("external.mine: steps 100, 200", "to measure: steps 100, 200", "measured already: steps none"):
        assert words in told
    assert re.search(r"^CPU: 0 s at \d+ Gflop/s, 0 s on 2 cores$", told, re.MULTILINE)
    kept = re.search(
        r"^kept for later pairs of snapshots: up to (\S+) kB, (\S+)% of the snapshots$", told, re.MULTILINE
    )
    assert kept and 4 < float(kept[1]) < 30
    assert re.search(r"^memory of a worker: up to [34]\d\d MB$", told, re.MULTILINE)


def test_what_is_there_is_not_to_be_measured(opd, folders, measure):
    measure(steps=(100,))
    assert "steps 100 were measured already; nothing is left to do" in plan(opd, folders, steps=(100,))[1]
    told = plan(opd, folders, "--diagnostics", "rotation,hill")[1]
    assert "to measure: steps 200\n" in told and "measured already: steps 100\n" in told


def test_notes_come_first(opd, prefix):
    (prefix / "checkpoint-300").mkdir()
    code, told, err = opd("plan", "--trajectory", prefix)
    assert (code, err) == (0, "") and told.startswith("note: snapshot 300: ")


@pytest.mark.parametrize(
    ("count", "said"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (123_456, "123 kB"), (5.25e9, "5.2 GB"), (2e16, "20000 TB")],
)
def test_sizes(count, said):
    assert format_bytes(count) == said
