"""Failed runs, failed checks and tripped guard-rails, told once each to whoever is to know: one sensor and its hooks.

OPD_NOTIFY names the hooks, with commas between them (`log` without it):
  log                  a line in the sensor's log
  https://host/path    a webhook: one POST of the event as JSON, whose `text` chat services show
  package.module:name  a function of yours, which takes the `Event`

The sensor reads the runs that have ended since its last tick; the first tick tells of nothing. What a hook did not take
is kept in the cursor and tried again, ATTEMPTS times with growing pauses, and then dropped with a line in the log. A
daemon that is killed in the middle of a tick repeats what that tick told, under the same `id`.
"""

import importlib
import json
import os
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from urllib.parse import urlsplit

import dagster as dg
from dagster import DagsterEventType as Type

from assets import failures, monitor, switches

ATTEMPTS = 8  # of one event at one hook; with the pauses below over about an hour
PAUSE = 30.0  # seconds before the second attempt; doubled for each one after it
TIMEOUT = 5.0  # seconds for a webhook to answer
BUDGET = 30.0  # seconds a tick may spend telling; Dagster ends one after a minute
BATCH = 50  # ended runs of one kind read in a tick
KEPT = 500  # events that wait for a hook; of more, the oldest are dropped
ENDS = (Type.RUN_SUCCESS, Type.RUN_FAILURE, Type.RUN_CANCELED)
RAILS = (monitor.NAME, monitor.GUARD.name)
SAID = ("verdict", "problems", "behind", "measured")  # metadata of a check that says why, the first it has

now = time.time


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that a person should know of. id: the same whenever it is told."""

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
    """Whom to tell: OPD_NOTIFY, and `log` where it is not set. A run's config, as for the store, names nobody."""

    def open(self, log: Callable[[str], None]) -> dict[str, Hook]:
        """By name. Errors: ValueError in one line, without what may be secret in it, for a hook that is none."""
        words = [word.strip() for word in (os.environ.get("OPD_NOTIFY") or "log").split(",")]
        return {word: _hook(word, log) for word in words if word}


def _hook(name: str, log: Callable[[str], None]) -> Hook:
    if name == "log":
        return lambda event: log(event.text)
    if name.startswith(("http://", "https://")):
        return lambda event: post(name, event)
    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f"OPD_NOTIFY names {name!r}, which is not there ({error}); use log, https://... or package.module:name"
        ) from None
    if not callable(found):
        raise ValueError(f"OPD_NOTIFY names {name!r}, which is no function; name one that takes an Event")
    return found


def post(url: str, event: Event) -> None:
    """One POST. Errors: OSError where nobody answers, or answers with no 2xx."""
    body = json.dumps({"text": event.text, **asdict(event)}).encode()
    headers = {"Content-Type": "application/json", "Idempotency-Key": event.id}
    with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=TIMEOUT) as answer:
        answer.read()


def shown(name: str) -> str:
    """A hook as a log may show it: of a webhook the host alone, since its path is often the secret."""
    parts = urlsplit(name)
    return f"webhook at {parts.hostname}" if parts.scheme in ("http", "https") else name


@dg.sensor(
    name="notify",
    minimum_interval_seconds=30,
    default_status=switches.sensor("notify"),
    description="Tells of failed runs, failed checks and tripped guard-rails, once each, whom OPD_NOTIFY names. "
    f"{switches.said('notify')}",
)
def sensor(context: dg.SensorEvaluationContext, hooks: Hooks) -> dg.SensorResult:
    """Read what has ended, tell of it, and keep what could not be told."""
    told = hooks.open(context.log.warning)
    state = json.loads(context.cursor) if context.cursor else {"ends": {}, "waiting": []}
    ends, events = dict(state["ends"]), []
    for kind in ENDS:
        cursor = ends.get(kind.value)
        begun = cursor is not None
        found = context.instance.fetch_run_status_changes(kind, BATCH if begun else 1, cursor, ascending=begun)
        ends[kind.value] = found.cursor
        for record in found.records if begun else ():
            events += events_of(context.instance, record.run_id)
    waiting = [one for one in state["waiting"] if one["hook"] in told]
    waiting += [{"event": asdict(event), "hook": name, "attempts": 0, "due": 0.0} for event in events for name in told]
    left, words = deliver(waiting, told, context.log.error)
    return dg.SensorResult(
        skip_reason=words or "nothing has failed",
        cursor=json.dumps({"ends": ends, "waiting": left}),
    )


def deliver(waiting: list[dict], told: dict[str, Hook], error: Callable[[str], None]) -> tuple[list[dict], str]:
    """Try what is due, and return what is to be tried again. A hook that fails is left alone for the tick."""
    begun, silent, left, count = now(), set[str](), [], 0
    for one in waiting:
        name, event = one["hook"], Event(**one["event"])
        if one["due"] > begun or name in silent or now() - begun > BUDGET:
            left.append(one)
            continue
        try:
            told[name](event)
            count += 1
        except Exception as failed:  # a hook is other people's code, and nothing may depend on it
            silent.add(name)
            attempts, why = one["attempts"] + 1, type(failed).__name__
            if attempts >= ATTEMPTS:
                error(f"{shown(name)} did not take it in {attempts} attempts ({why}), dropped: {event.text}")
                continue
            left.append(one | {"attempts": attempts, "due": begun + PAUSE * 2 ** (attempts - 1)})
    for one in left[:-KEPT]:
        error(f"too much waits for {shown(one['hook'])}, dropped: {Event(**one['event']).text}")
    parts = [f"told {count}" if count else "", f"{len(left)} wait" if left else ""]
    return left[-KEPT:], ", ".join(filter(None, parts))


def events_of(instance: dg.DagsterInstance, run_id: str) -> Iterator[Event]:
    """What is to be told of a run that has ended: its failed checks, then its own failure."""
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
                reason=_said(check),
                time=record.timestamp,
                **common,
            )
    if run.status == dg.DagsterRunStatus.FAILURE:
        steps = [entry for record in records if (entry := record.event_log_entry.dagster_event)]
        ended = max((record.timestamp for record in records), default=now())
        reason = failures.reason(steps)
        more = {"partition": partition, "asset": "", "check": "", "reason": reason}
        yield Event(id=run_id, kind="run", severity="ERROR", time=ended, **more, **common)


def _said(check: dg.AssetCheckEvaluation) -> str:
    """Why it failed, in one line."""
    for name in SAID:
        if name in check.metadata:
            return "; ".join(str(check.metadata[name].value).splitlines())
    facts = (f"{name} {value.value}" for name, value in check.metadata.items())
    return check.description or ", ".join(facts) or "no reason given"
