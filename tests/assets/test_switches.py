"""What is on by itself, and where night is."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest

from assets import automation, switches


def test_nothing_is_on_by_itself():
    assert not any(switches.is_on(name) for name in switches.AUTOMATIONS)
    assert {sensor.default_status for sensor in automation.SENSORS} == {dg.DefaultSensorStatus.STOPPED}


@pytest.mark.parametrize(
    ("said", "found"), [("on", set(switches.AUTOMATIONS)), ("nightly, watch", {"nightly", "watch"}), (" ", set())]
)
def test_a_variable_switches_all_or_some_on(said, found, monkeypatch):
    monkeypatch.setenv("OPD_AUTOMATION", said)
    assert {name for name in switches.AUTOMATIONS if switches.is_on(name)} == found


def test_unknown_words_and_zones_are_refused_in_one_line(monkeypatch):
    monkeypatch.setenv("OPD_AUTOMATION", "nightly,daily")
    with pytest.raises(ValueError, match=r"^OPD_AUTOMATION names 'daily'; known: on, nightly, follow, watch, notify$"):
        switches.is_on("nightly")
    for name in ("Europe/Nowhere", "../zone", "/etc"):
        monkeypatch.setenv("OPD_TIMEZONE", name)
        with pytest.raises(ValueError, match=r"^OPD_TIMEZONE '.*' is no time zone; name one as"):
            switches.read_timezone()


def test_a_night_has_one_date_where_the_sweep_runs(monkeypatch):
    monkeypatch.setattr(automation, "ZONE", "Europe/Berlin")
    # From 01:00 to 05:50 in summer: in UTC from 23:00 of the day before.
    assert automation.night(datetime(2026, 7, 1, 23, 0, tzinfo=UTC)) == "2026-07-02"
    assert automation.night(datetime(2026, 7, 2, 3, 50, tzinfo=UTC)) == "2026-07-02"


def test_the_code_location_takes_both():
    code = (
        "import json; from assets import automation as a; "
        "print(json.dumps([a.ZONE, a.sweep.description, {s.name: s.default_status.value for s in a.SENSORS}]))"
    )
    found = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).resolve().parents[2],
        env=os.environ | {"OPD_AUTOMATION": "nightly,notify", "OPD_TIMEZONE": "Asia/Tokyo"},
        capture_output=True,
        text=True,
        check=True,
    )
    zone, description, sensors = json.loads(found.stdout)
    assert zone == "Asia/Tokyo" and "from 01:00 to 06:00 Asia/Tokyo" in description
    assert sensors == {"geometry_sweep": "RUNNING", "follow": "STOPPED", "watch": "STOPPED", "notify": "RUNNING"}
