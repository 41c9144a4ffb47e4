"""DAGSTER_HOME: where it lies, what is put there, and that nothing is sent."""

import os
from pathlib import Path

from assets import instance as home_of


def test_a_home_is_made_with_our_configuration_unless_it_has_one(tmp_path, monkeypatch):
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "a" / "home"))
    assert home_of.home() == tmp_path / "a" / "home"
    config = tmp_path / "a" / "home" / "dagster.yaml"
    assert config.read_text() == Path(home_of.__file__).with_name("dagster.yaml").read_text()
    config.write_text("telemetry:\n  enabled: true\n")
    home_of.home()
    assert config.read_text() == "telemetry:\n  enabled: true\n"


def test_without_a_variable_home_lies_here_and_is_exported(tmp_path, monkeypatch):
    monkeypatch.setenv("DAGSTER_HOME", "")
    monkeypatch.chdir(tmp_path)
    assert home_of.home() == tmp_path / ".opd" / "dagster"
    assert os.environ["DAGSTER_HOME"] == str(tmp_path / ".opd" / "dagster")


def test_our_configuration_sends_nothing_and_is_one_dagster_accepts(tmp_path, monkeypatch):
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    with home_of.local_instance() as made:
        assert made.telemetry_enabled is False
        assert made.root_directory == str(tmp_path)
