"""Packages of another program are installed once, and again when they change; what fails is a reason."""

import dataclasses
import os
import sys

import pytest

from tests.bench.environment import Absent, Environment


@pytest.fixture
def made(tmp_path):
    """An environment in an empty folder."""
    (tmp_path / "other").mkdir()
    return Environment(tmp_path / "other", ("a==1", "b>=2"), {"ALONE": "yes"})


def test_it_is_made_once_and_again_when_its_packages_change(made, monkeypatch):
    ran = []
    monkeypatch.setattr(Environment, "call", lambda self, command, otherwise: ran.append(command))
    with pytest.raises(Absent, match=r"^not installed: other is missing, a full bench makes it$"):
        made.interpreter()
    for _ in range(2):
        assert made.install() == made.interpreter() == made.folder / "bin" / "python"
    venv, pip = ran
    assert venv[1:] == ["-m", "venv", "--clear", str(made.folder)] and set(made.packages) <= set(pip)
    changed = dataclasses.replace(made, packages=(*made.packages[:-1], "last==5"))
    with pytest.raises(Absent, match="not installed: other is missing"):
        changed.interpreter()
    changed.install()
    assert len(ran) == 4 and made.packages[-1] not in ran[-1] and "last==5" in ran[-1]


def test_an_installation_that_fails_says_why_and_leaves_nothing_that_is_taken_for_one(made, no_network):
    with pytest.raises(Absent, match=r"^not installed: ERROR: No matching$"):
        made.install()
    venv, pip = no_network
    assert venv[1:3] == ["-m", "venv"] and pip[-2:] == ["a==1", "b>=2"]
    with pytest.raises(Absent, match="other is missing"):
        made.interpreter()


def test_a_process_runs_one_thread_offline_with_the_environments_variables(made, tmp_path):
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "HF_HUB_OFFLINE", "ALONE", "PATH")
    program = f"import json, os, sys; json.dump([os.environ[n] for n in {names}], open(sys.argv[1], 'w'))"
    made.call([sys.executable, "-c", program, str(tmp_path / "found")], "failed")
    assert (tmp_path / "found").read_text() == f'["1", "1", "1", "1", "yes", "{os.environ["PATH"]}"]'


def test_what_fails_is_a_reason(made):
    with pytest.raises(Absent, match=r"^failed: .*No such file"):
        made.call([str(made.folder / "python")], "failed")
    with pytest.raises(Absent, match=r"^failed: ValueError: no$"):
        made.call([sys.executable, "-c", "raise ValueError('no')"], "failed")
    with pytest.raises(Absent, match=r"^failed: exit code 3$"):
        made.call([sys.executable, "-c", "raise SystemExit(3)"], "failed")
