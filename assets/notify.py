"""Notifications of failed runs, failed checks and tripped guard-rails, each sent once: one sensor and its hooks.

OPD_NOTIFY names the hooks, separated by commas (default `log`):
  log                  a line in the sensor's log
  https://host/path    a webhook: one POST of the event as JSON, whose `text` chat services show
  package.module:name  a function of yours, called with the `Event`

The sensor reads the runs that have ended since its last tick; the first tick sends nothing. A hook that fails is named
in the sensor's log with the event, and is not tried again. A daemon that is killed during a tick sends that tick's
events again, with the same `id`.
"""

import importlib
import json
import os
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from urllib.parse import urlsplit

import dagster as dg
from dagster import DagsterEventType as Type

from assets import failures, monitor, switches

TIMEOUT = 5.0  # seconds for a webhook to answer
BATCH = 50  # ended runs of one kind read in a tick
ENDS = (Type.RUN_SUCCESS, Type.RUN_FAILURE, Type.RUN_CANCELED)
RAILS = (monitor.NAME, monitor.GUARD.name)
REASONS = ("verdict", "problems", "behind", "measured")  # metadata of a check that says why, the first it has


@dataclass(frozen=True, kw_only=True)
class Event:
    """An event to notify a person of. id: the same each time it is sent."""

    id: str
    kind: str  # run, check or guard-rail
    severity: str  # ERROR or WARN
    run: str
    job: str
    partition: str
    asset: str  # empty for a run
    check: str  # empty for a run
    reason: str
    time: float  # seconds since 1970

    @property
    def text(self) -> str:
        """One line."""
        where = f" [{self.partition}]" if self.partition else ""
        if self.kind == "run":
            return f"run of {self.job}{where} failed: {self.reason}"
        return f"{self.kind} {self.check} on {self.asset}{where} failed ({self.severity}): {self.reason}"


Hook = Callable[[Event], object]


class Hooks(dg.ConfigurableResource):
    """The hooks: OPD_NOTIFY, or `log` if it is not set. A run's config cannot set them."""

    def open(self, log: Callable[[str], None]) -> dict[str, Hook]:
        """The hooks by name. Errors: ValueError in one line for an invalid hook, without secrets."""
        words = [word.strip() for word in (os.environ.get("OPD_NOTIFY") or "log").split(",")]
        return {word: _find_hook(word, log) for word in words if word}


def _find_hook(name: str, log: Callable[[str], None]) -> Hook:
    if name == "log":
        return lambda event: log(event.text)
    if name.startswith(("http://", "https://")):
        return lambda event: post(name, event)
    module, _, attribute = name.partition(":")
    try:
        hook = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f"OPD_NOTIFY names {name!r}, which is not there ({error}); use log, https://... or package.module:name"
        ) from None
    if not callable(hook):
        raise ValueError(f"OPD_NOTIFY names {name!r}, which is no function; name one that takes an Event")
    return hook


def post(url: str, event: Event) -> None:
    """Send one POST. Errors: OSError without an answer or with a status other than 2xx."""
    body = json.dumps({"text": event.text, **asdict(event)}).encode()
    headers = {"Content-Type": "application/json", "Idempotency-Key": event.id}
    with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=TIMEOUT) as answer:
        answer.read()


def hide_secret(name: str) -> str:
    """A hook as a log may show it: of a webhook only the host, since its path is often secret."""
    parts = urlsplit(name)
    return f"webhook at {parts.hostname}" if parts.scheme in ("http", "https") else name


@dg.sensor(
    name="notify",
    minimum_interval_seconds=30,
    default_status=switches.default_status("notify"),
    description="Tells of failed runs, failed checks and tripped guard-rails, once each, whom OPD_NOTIFY names. "
    f"{switches.how_to_switch('notify')}",
)
def sensor(context: dg.SensorEvaluationContext, hooks: Hooks) -> dg.SensorResult:
    """Read the ended runs, and send an event for each failure."""
    by_name = hooks.open(context.log.warning)
    cursors = json.loads(context.cursor)["ends"] if context.cursor else {}
    events = []
    for kind in ENDS:
        cursor = cursors.get(kind.value)
        is_first = cursor is None
        changes = context.instance.fetch_run_status_changes(kind, 1 if is_first else BATCH, cursor, not is_first)
        cursors[kind.value] = changes.cursor
        for record in () if is_first else changes.records:
            events += list_events(context.instance, record.run_id)
    tell(events, by_name, context.log.error)
    reason = f"told {len(events)}" if events else "nothing has failed"
    return dg.SensorResult(skip_reason=reason, cursor=json.dumps({"ends": cursors}))


def tell(events: list[Event], hooks: dict[str, Hook], log: Callable[[str], None]) -> None:
    """Send every event to every hook; a hook that fails is skipped for the rest of the tick."""
    for name, hook in hooks.items():
        for place, event in enumerate(events):
            try:
                hook(event)
            except Exception as error:  # a hook is other people's code, and nothing may depend on it
                lost = "; ".join(event.text for event in events[place:])
                log(f"{hide_secret(name)} did not take it ({type(error).__name__}), dropped: {lost}")
                break


def list_events(instance: dg.DagsterInstance, run_id: str) -> Iterator[Event]:
    """The events of an ended run: its failed checks, then its own failure."""
    run = instance.get_run_by_id(run_id)
    if run is None:  # deleted since
        return
    kinds = {Type.ASSET_CHECK_EVALUATION, Type.STEP_FAILURE, Type.RUN_FAILURE}
    records = instance.get_records_for_run(run_id, of_type=kinds).records
    partition = str(run.tags.get("dagster/partition", ""))
    common = {"run": run_id, "job": run.job_name}
    for record in records:
        event = record.event_log_entry.dagster_event
        if event is None or event.event_type != Type.ASSET_CHECK_EVALUATION:
            continue
        check = event.asset_check_evaluation_data
        if not check.passed:
            yield Event(
                id=f"{run_id}/{check.asset_key.to_user_string()}/{check.check_name}/{check.partition or ''}",
                kind="guard-rail" if check.check_name in RAILS else "check",
                severity=check.severity.value,
                partition=check.partition or partition,
                asset=check.asset_key.to_user_string(),
                check=check.check_name,
                reason=_reason(check),
                time=record.timestamp,
                **common,
            )
    if run.status == dg.DagsterRunStatus.FAILURE:
        steps = [entry for record in records if (entry := record.event_log_entry.dagster_event)]
        ended = max((record.timestamp for record in records), default=0.0)
        reason = failures.reason(steps)
        more = {"partition": partition, "asset": "", "check": "", "reason": reason}
        yield Event(id=run_id, kind="run", severity="ERROR", time=ended, **more, **common)


def _reason(check: dg.AssetCheckEvaluation) -> str:
    """The reason of the failure, in one line."""
    for name in REASONS:
        if name in check.metadata:
            return "; ".join(str(check.metadata[name].value).splitlines())
    facts = (f"{name} {value.value}" for name, value in check.metadata.items())
    return check.description or ", ".join(facts) or "no reason given"
