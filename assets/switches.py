"""Which automations are on when Dagster first sees them, and the time zone of nights: two variables of the environment.

OPD_AUTOMATION   `on`, or some of nightly, follow, watch, notify with commas between them; nothing is on without it
OPD_TIMEZONE     an IANA name such as Europe/Berlin; UTC without it
A switch that a person has set in the UI stays as it was set.
"""

import os
from zoneinfo import ZoneInfo

import dagster as dg

AUTOMATIONS = ("nightly", "follow", "watch", "notify")


def is_on(name: str) -> bool:
    """Errors: ValueError naming a word of OPD_AUTOMATION that is no automation."""
    words = {word.strip() for word in os.environ.get("OPD_AUTOMATION", "").split(",")} - {""}
    if unknown := sorted(words - {"on", *AUTOMATIONS}):
        raise ValueError(f"OPD_AUTOMATION names {unknown[0]!r}; known: on, {', '.join(AUTOMATIONS)}")
    return bool(words & {"on", name})


def default_status(name: str) -> dg.DefaultSensorStatus:
    """Of a sensor of this automation."""
    return dg.DefaultSensorStatus.RUNNING if is_on(name) else dg.DefaultSensorStatus.STOPPED


def how_to_switch(name: str) -> str:
    """How it is switched on, for where it is seen."""
    return f"Off until it is switched on: by its toggle, or with OPD_AUTOMATION={name} (or `on`) where Dagster starts."


def read_timezone() -> str:
    """Errors: ValueError for a name that is no time zone."""
    name = os.environ.get("OPD_TIMEZONE") or "UTC"
    try:
        return ZoneInfo(name).key
    except (LookupError, ValueError, OSError):
        raise ValueError(f"OPD_TIMEZONE {name!r} is no time zone; name one as Europe/Berlin, or UTC") from None
