"""A study of one's own, the README's example: run from the terminal and the UI, swept by a night, reported.

An own Llama with an own tokenizer, a file of questions, two seeds, a control, and an arm that starts from tiny.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from assets.partitions import run_key
from assets.ui import free_port
from pipelines.store.objects import Store
from tests.e2e import small
from tests.own import make_data, make_model
from tests.pipelines.report.test_page import read

ROOT = Path(__file__).resolve().parents[2]
LONG = 300  # seconds: longer than anything takes on a machine that is busy with other tests
ARMS = ("distill", "grpo", "offline", "onward")
BEGUN = {"mine.offline|0", "mine.onward|0", "mine.grpo|1"}  # by the terminal and the UI
NIGHT = """
import json, sys, warnings
from datetime import UTC, datetime, timedelta
warnings.filterwarnings("ignore")
import dagster as dg
from assets import automation, lane
from assets.definitions import defs
from assets.instance import local_instance
from pipelines.store.objects import Store, default_uri

store, seen = Store(default_uri()), []
with local_instance() as instance:
    for minutes in (0, 10, 20, 30):
        begin = datetime(2026, 3, 2, 1, 0, tzinfo=UTC) + timedelta(minutes=minutes)
        requests = automation.build_requests(instance, store, begin, lambda line: None)
        requests = [request for request in requests if "mine" in request.partition_key]  # tiny is swept too
        for request in requests:
            resources = {"cluster": {"config": {"serial": True}}}
            result = defs.resolve_job_def(request.job_name).execute_in_process(
                instance=instance, partition_key=request.partition_key, raise_on_error=False,
                run_config=lane.SILENT | {"resources": resources}, tags=request.tags,
            )
            seen.append([request.job_name, request.partition_key, None if result.success else lane.reason(result)])
print(json.dumps(seen))
"""


def example() -> str:
    """The study of the README, with fewer steps."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.S)
    (text,) = [block for block in blocks if "def study():" in block]
    short = text.replace("steps=20, snapshots=(1, 2, 5, 10, 20)", "steps=2, snapshots=(1, 2)")
    assert short != text
    return short.replace("problems=16, samples=4", "problems=4, samples=2")


class Home:
    """A folder of somebody's: model, teacher, data and study, over a store that has a run of tiny."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.store = folder, Store(f"file://{folder}/.opd/store")
        make_model(folder / "mymodel")
        make_model(folder / "myteacher", seed=1)
        make_data(folder / "my.jsonl")
        (folder / "mine.py").write_text(example())
        small.plant(self.store)
        inherited = {name: value for name, value in os.environ.items() if name not in ("RAY_ADDRESS", "OPD_STORE")}
        self.environment = inherited | {"DAGSTER_HOME": f"{folder}/dagster", "PYTHONPATH": str(ROOT), "COLUMNS": "80"}

    def run(self, *command: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *command],
            cwd=self.folder,
            env=self.environment | more,
            capture_output=True,
            text=True,
            timeout=LONG,
        )

    def opd(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.run("-m", "pipelines.cli", *arguments)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return Home(tmp_path_factory.mktemp("own"))


@pytest.fixture(scope="module")
def launched(home):
    """The terminal: two arms of one seed; the rest is for the UI and the night."""
    return home.opd("study", "run", "./mine.py", "--recipe", "offline", "--recipe", "onward", "--seed", "0")


@pytest.fixture(scope="module")
def materialised(home, launched):
    """The UI: one run of grpo, asked for as the browser does; what `opd ui` printed."""
    with subprocess.Popen(
        [sys.executable, "-m", "pipelines.cli", "ui", "--port", str(free_port(0))],
        cwd=home.folder,
        env=home.environment | {"OPD_STUDIES": "./mine.py"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as server:
        lines = []
        try:
            assert server.stdout is not None
            for line in server.stdout:
                lines.append(line)
                if address := re.match(r"http://127\.0\.0\.1:\d+", line):  # which is printed once the server answers
                    break
            else:
                raise AssertionError("".join(lines))
            status = launch(address[0], "mine.grpo|1")
        finally:
            server.send_signal(signal.SIGINT)
            server.communicate(timeout=LONG)
    return status, "".join(lines)


def launch(address: str, partition: str) -> str:
    """Start the job runs of a partition over GraphQL, and wait: its last status."""

    def ask(query: str, **variables: object) -> dict:
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(f"{address}/graphql", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["data"]

    selector = {"repositoryLocationName": "opd", "repositoryName": "__repository__", "jobName": "runs"}
    tags = [{"key": "dagster/partition", "value": partition}]
    wanted = {"selector": selector, "runConfigData": {}, "executionMetadata": {"tags": tags}}
    mutation = "mutation($p: ExecutionParams!) {launchRun(executionParams: $p) {... on LaunchRunSuccess {run {runId}}}}"
    identity = ask(mutation, p=wanted)["launchRun"]["run"]["runId"]
    deadline = time.monotonic() + LONG
    while time.monotonic() < deadline:
        status = ask("query($r: ID!) {runOrError(runId: $r) {... on Run {status}}}", r=identity)["runOrError"]["status"]
        if status in ("SUCCESS", "FAILURE", "CANCELED"):
            return status
        time.sleep(0.5)
    raise AssertionError("the run did not end")


@pytest.fixture(scope="module")
def swept(home, materialised):
    """A night of the geometry sweep: what it asked for and did, as (job, partition, failure)."""
    done = home.run("-c", NIGHT, OPD_STUDIES="./mine.py", OPD_STORE=home.store.uri)
    assert done.returncode == 0, done.stderr[-2000:]
    return [tuple(request) for request in json.loads(done.stdout.splitlines()[-1])]


@pytest.fixture(scope="module")
def page(home, swept):
    done = home.opd("report", "./mine.py", "--save", "mine.html")
    assert done.returncode == 0, done.stderr
    return (home.folder / "mine.html").read_text()


def test_the_terminal_runs_it_and_ends_within_its_width(launched):
    assert launched.returncode == 0, launched.stderr
    assert "5 Dagster runs" in launched.stdout and "mine.onward, seed 0" in launched.stdout
    end = launched.stdout.partition("\n\n")[2].splitlines()
    assert len(end) <= 15 and max(map(len, end)) <= 80
    assert "none decided" in end[0] and any(line.startswith("mean") and "onward" in line for line in end)
    assert "opd study verdicts ./mine.py" in launched.stdout


def test_the_ui_shows_what_the_store_holds_and_materialises_a_run(materialised, home):
    status, said = materialised
    assert status == "SUCCESS", said
    assert home.store.exists("lake/rotation/recipe=mine.grpo/seed=1/part-0.parquet")


def test_a_night_asks_for_what_is_missing_and_compares(swept):
    assert all(failure is None for _, _, failure in swept), swept
    mine = [(job, partition) for job, partition, _ in swept if "mine" in partition]
    every = {run_key(f"mine.{arm}", seed) for arm in ARMS for seed in (0, 1)}
    assert {partition for job, partition in mine if job == "runs"} == every - BEGUN
    assert mine[-1] == ("comparison", "mine")


def test_the_page_speaks_of_its_own_arms_alone(page):
    outline = read(page)
    assert outline.open == [] and outline.words < 1500 and outline.charts > 5
    assert "Study mine: 4 arms, seeds 0 and 1" in page and "Weight geometry of Sums of two digits" in page
    assert "A verdict takes three seeds; two seeds are measured." in page
    assert "Distillation differs from offline" in page and "offline in the place of Distillation" in page
    assert not re.search(r"\b(SFT|RLVR|sft-matched|2606\.07082)\b", page)
