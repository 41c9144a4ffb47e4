"""What is told of, to whom, how often, and that nothing depends on whoever is told."""

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import ModuleType
from typing import Any

import dagster as dg
import polars as pl
import pytest

from assets import monitor, notify
from assets.notify import Event, Hooks, sensor

SILENT = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@dg.asset(
    partitions_def=dg.StaticPartitionsDefinition(["a", "b"]),
    check_specs=[dg.AssetCheckSpec(name, asset="update_norm") for name in ("within_band", "weights_finite")],
)
def update_norm(context):
    """Partition a leaves its band, and its run succeeds; b is as it should be."""
    good = context.partition_key == "b"
    warn = dg.AssetCheckSeverity.WARN
    band = {"verdict": "inside" if good else "left at step 4: stable_rank"}
    return dg.MaterializeResult(
        check_results=[
            dg.AssetCheckResult(check_name="within_band", passed=good, severity=warn, metadata=band),
            dg.AssetCheckResult(check_name="weights_finite", passed=True),
        ]
    )


@dg.asset
def disk():
    raise dg.Failure("no space left\nmake some")


DEFS = dg.Definitions([update_norm, disk], executor=dg.in_process_executor)


@pytest.fixture
def end(instance):
    """end(asset, partition): a run of it that ends; its id."""

    def run(asset, partition=None):
        found = dg.materialize(
            [asset], instance=instance, partition_key=partition, raise_on_error=False, run_config=SILENT
        )
        return found.run_id

    return run


@pytest.fixture
def tick(instance, monkeypatch):
    """tick(cursor, names): one tick of a daemon that knows nothing but the cursor; (cursor, what it says of itself)."""

    def evaluate(cursor, names="log"):
        monkeypatch.setenv("OPD_NOTIFY", names)
        context = dg.build_sensor_context(
            instance=instance, cursor=cursor, resources={"hooks": Hooks()}, definitions=DEFS
        )
        found = sensor.evaluate_tick(context)
        return found.cursor, found.skip_message

    return evaluate


@pytest.fixture
def heard(monkeypatch):
    """Events that the hook `listening:hear` was given."""
    module, found = ModuleType("listening"), []
    vars(module)["hear"] = found.append
    monkeypatch.setitem(sys.modules, "listening", module)
    return found


class Server(HTTPServer):
    """Keeps the bodies and headers it is sent, and answers with `status`."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.status, self.got = 200, []
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/services/secret"


class Handler(BaseHTTPRequestHandler):
    server: Any

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.got.append((self.path, self.headers["Idempotency-Key"], body))
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, format, *args):
        pass


@pytest.fixture
def server():
    made = Server()
    yield made
    made.shutdown()
    made.server_close()


def test_every_failure_is_told_once_over_restarts_and_nothing_that_was_before(end, tick, heard):
    end(disk)
    cursor, _ = tick(None, "listening:hear")
    assert heard == [], "switched on, it tells of what comes"
    left, good, failed = end(update_norm, "a"), end(update_norm, "b"), end(disk)
    cursor, said = tick(cursor, "listening:hear")
    assert said == "told 2"
    assert [(e.kind, e.run, e.asset, e.check, e.partition, e.severity) for e in heard] == [
        ("guard-rail", left, "update_norm", "within_band", "a", "WARN"),
        ("run", failed, "", "", "", "ERROR"),
    ]
    assert [e.reason for e in heard] == ["left at step 4: stable_rank", "no space left make some"]
    assert good not in {e.run for e in heard} and len({e.id for e in heard}) == 2
    for _ in range(2):
        cursor, said = tick(cursor, "listening:hear")
        assert said == "nothing has failed" and len(heard) == 2
    again = end(update_norm, "a")
    tick(cursor, "listening:hear")
    assert [e.run for e in heard[2:]] == [again], "another materialisation is another event"


def test_a_tick_that_was_cut_short_repeats_the_same_ids(end, tick, heard):
    cursor, _ = tick(None, "listening:hear")
    end(update_norm, "a")
    tick(cursor, "listening:hear")
    tick(cursor, "listening:hear")
    assert len(heard) == 2 and heard[0] == heard[1]


def test_a_webhook_gets_one_post_with_a_text(end, tick, server):
    cursor, _ = tick(None, server.url)
    run = end(update_norm, "a")
    cursor, _ = tick(cursor, server.url)
    tick(cursor, server.url)
    ((path, key, body),) = server.got
    assert (path, key) == ("/services/secret", body["id"]) and body["run"] == run
    assert body["text"] == ("guard-rail within_band on update_norm [a] failed (WARN): left at step 4: stable_rank")


def test_a_webhook_that_is_down_holds_up_no_other_hook_and_what_it_did_not_take_is_logged(end, tick, heard, server):
    names = f"{server.url}, listening:hear"
    cursor, _ = tick(None, names)
    end(update_norm, "a")
    end(disk)
    server.status = 503
    cursor, said = tick(cursor, names)
    assert said == "told 2" and len(heard) == 2 and len(server.got) == 1, "left alone for the tick"
    errors = []
    notify.tell(list(heard), {server.url: Hooks().open(print)[server.url]}, errors.append)
    (line,) = errors
    assert line.startswith(
        "webhook at 127.0.0.1 did not take it (HTTPError), dropped: guard-rail within_band on update"
    )
    assert "secret" not in line and "run of" in line
    server.status = 200
    tick(cursor, names)
    assert len(heard) == 2 and len(server.got) == 2


def test_without_a_setting_the_log_is_told(end, tick, monkeypatch):
    monkeypatch.delenv("OPD_NOTIFY", raising=False)
    said = []
    assert list(Hooks().open(said.append)) == ["log"]
    event = Event(
        id="i", kind="check", severity="WARN", run="r", job="j", partition="p", asset="a", check="c", reason="w", time=0
    )
    Hooks().open(said.append)["log"](event)
    assert said == ["check c on a [p] failed (WARN): w"]
    monkeypatch.setenv("OPD_NOTIFY", "log,json:dumps")
    assert list(Hooks().open(said.append)) == ["log", "json:dumps"]


@pytest.mark.parametrize("name", ["nothing.there:hook", "json:nothing", "json", "json:__name__", ":x"])
def test_a_hook_that_is_none_is_named_in_one_line(name, monkeypatch):
    monkeypatch.setenv("OPD_NOTIFY", name)
    with pytest.raises(ValueError, match=r"^OPD_NOTIFY names '.*', which is (no function|not there)") as caught:
        Hooks().open(print)
    assert "\n" not in str(caught.value)


def test_a_guard_that_tripped_in_training_fails_its_check_and_is_a_guard_rail():
    quiet = monitor.untripped(pl.DataFrame({"tripped": [None, None]}, schema={"tripped": pl.Int64}))
    tripped = monitor.untripped(pl.DataFrame({"tripped": [None, 15, 15]}))
    assert quiet.passed and not tripped.passed
    assert tripped.severity == dg.AssetCheckSeverity.WARN
    assert tripped.metadata["verdict"].value == "tripped at step 15"
    assert tripped.check_name in notify.RAILS
