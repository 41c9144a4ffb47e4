"""The automations that are on when Dagster first sees them, and the time zone of nights: two environment variables.

OPD_AUTOMATION `on`, or some of nightly, follow, watch, notify, separated by commas; by default nothing is on
OPD_TIMEZONE an IANA name such as Europe/Berlin; by default UTC A switch that a person has set in the UI keeps its
state.
"""

import os
from zoneinfo import ZoneInfo

import dagster as dg

AUTOMATIONS = ("nightly", "follow", "watch", "notify")


def is_on(name: str) -> bool:
    """Whether an automation is on. Errors: ValueError naming an unknown word of OPD_AUTOMATION."""
    words = {word.strip() for word in os.environ.get("OPD_AUTOMATION", "").split(",")} - {""}
    if unknown := sorted(words - {"on", *AUTOMATIONS}):
        raise ValueError(f"OPD_AUTOMATION names {unknown[0]!r}; known: on, {', '.join(AUTOMATIONS)}")
    return bool(words & {"on", name})


def default_status(name: str) -> dg.DefaultSensorStatus:
    """The default status of an automation's sensor."""
    return dg.DefaultSensorStatus.RUNNING if is_on(name) else dg.DefaultSensorStatus.STOPPED


def how_to_switch(name: str) -> str:
    """How to switch the automation on, for its description in the UI."""
    return f"Off until it is switched on: by its toggle, or with OPD_AUTOMATION={name} (or `on`) where Dagster starts."


def read_timezone() -> str:
    """The time zone of nights. Errors: ValueError for an unknown name."""
    name = os.environ.get("OPD_TIMEZONE") or "UTC"
    try:
        return ZoneInfo(name).key
    except (LookupError, ValueError, OSError):
        raise ValueError(f"OPD_TIMEZONE {name!r} is no time zone; name one as Europe/Berlin, or UTC") from None
