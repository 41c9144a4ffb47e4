"""A person at the UI, in a real browser: the graph, a partition, its run, a figure, a check, a failure.

Screenshots go to the folder OPD_SCREENSHOTS, to be looked at. `make browser` installs what this needs.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from assets import backfill
from assets.partitions import run_key
from assets.ui import free_port
from pipelines.store.objects import Store
from tests.browser import chromium
from tests.e2e import small
from tests.e2e.small import ARM

ROOT = Path(__file__).resolve().parents[2]
LONG = 120_000  # ms: longer than anything takes on a machine that is busy with other tests


class Served:
    """`make ui` over a store, in a process group of its own."""

    def __init__(self, home: Path) -> None:
        self.home, self.port = home, free_port(0)
        inherited = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
        places = {"OPD_STORE": str(home / "store"), "DAGSTER_HOME": str(home / "dagster"), "PORT": str(self.port)}
        self.log = (home / "ui.log").open("w")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "assets.ui"],
            cwd=ROOT,
            env=inherited | places,
            stdout=self.log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self.address = f"http://127.0.0.1:{self.port}"

    def wait(self) -> None:
        deadline = time.monotonic() + LONG / 1000
        while True:
            assert self.process.poll() is None, (self.home / "ui.log").read_text()[-2000:]
            try:
                with urllib.request.urlopen(f"{self.address}/server_info", timeout=5):
                    return
            except OSError:
                assert time.monotonic() < deadline, "the UI did not start"
                time.sleep(0.2)

    def launch(self, recipe: str, seed: int) -> str:
        """Start a run of one partition as the UI does; its id."""
        key = run_key(recipe, seed)
        backfill.offer(self.address, {"runs": [key]})  # as a person can, who types it in the dialog
        tags = [{"key": "dagster/partition", "value": key}]
        selector = {"repositoryLocationName": "opd", "repositoryName": "__repository__", "jobName": "runs"}
        asked = {"selector": selector, "runConfigData": {}, "executionMetadata": {"tags": tags}}
        query = (
            "mutation($p: ExecutionParams!) {launchRun(executionParams: $p) {... on LaunchRunSuccess {run {runId}}}}"
        )
        body = json.dumps({"query": query, "variables": {"p": asked}}).encode()
        request = urllib.request.Request(f"{self.address}/graphql", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["data"]["launchRun"]["run"]["runId"]

    def left(self) -> list[str]:
        """Processes that were started for this store and are still there."""
        mine, found = f"DAGSTER_HOME={self.home}".encode(), []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if mine in (folder / "environ").read_bytes():
                    found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode())
            except OSError:
                continue
        return found

    def end(self) -> None:
        """What Ctrl-C does, to this process alone; killed where that does not end it."""
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(timeout=120)
        finally:
            if self.process.poll() is None:
                self.process.kill()
            self.log.close()


class Person:
    """A browser's page, and where its screenshots go."""

    def __init__(self, page, address: str, folder: Path) -> None:
        self.page, self.address, self.folder, self.seen = page, address, folder, 0
        page.set_default_timeout(LONG)

    def goes(self, path: str) -> None:
        self.page.goto(self.address + path)

    def looks(self, name: str) -> None:
        """A screenshot, once what was asked of the server is drawn."""
        self.seen += 1
        self.page.wait_for_timeout(700)
        self.page.screenshot(path=self.folder / f"{self.seen:02d}-{name}.png")

    def sees(self, text: str | re.Pattern, within=None) -> None:
        found = (within or self.page).get_by_text(text, exact=True).locator("visible=true")
        found.first.wait_for()

    def picks(self, value: str) -> None:
        """Choose one key in the dialog of a launch."""
        dialog = self.page.get_by_role("dialog")
        dialog.get_by_text("Select a partition or create one").first.click()
        self.page.get_by_placeholder("Filter partitions").fill(value)
        self.page.get_by_text(re.compile(r"Select all \(\d+\)")).wait_for()
        self.page.get_by_text(value, exact=True).locator("visible=true").last.click()
        dialog.get_by_label("expand_less").first.click()

    def opens(self, entry: str):
        """The dialog that shows a Markdown entry of a materialisation."""
        row = self.page.locator("tr").filter(has=self.page.get_by_text(entry, exact=True))
        row.get_by_text("[Show Markdown]").first.click()
        return self.page.get_by_role("dialog")


@pytest.fixture(scope="module")
def browser():
    with chromium() as opened:
        yield opened


@pytest.fixture(scope="module")
def served(browser, tmp_path_factory):
    home = tmp_path_factory.mktemp("ui")
    store = Store(f"file://{home}/store")
    small.plant(store)
    ui = Served(home)
    try:
        yield ui
    finally:
        ui.end()
    deadline = time.monotonic() + 60
    while ui.left() and time.monotonic() < deadline:
        time.sleep(0.2)
    assert ui.left() == []
    assert ui.process.returncode == 0


@pytest.fixture
def person(browser, served, tmp_path):
    served.wait()
    folder = Path(os.environ.get("OPD_SCREENSHOTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    yield Person(browser.new_page(viewport={"width": 1440, "height": 900}), served.address, folder)


def test_a_person_launches_a_partition_watches_it_and_opens_what_it_made(served, person):
    page = person.page
    foreign = urllib.request.Request(f"{served.address}/", headers={"Host": "evil.example"})
    with pytest.raises(urllib.error.HTTPError) as other:
        urllib.request.urlopen(foreign, timeout=30)
    assert other.value.code == 403
    refused = served.launch("qwen3-8b.opd", 2)  # that study has one seed
    person.goes("/asset-groups")
    for group in ("models", "trajectories", "geometry", "verdicts"):
        person.sees(group)
    person.looks("graph")

    person.goes("/locations/opd/jobs/runs")
    page.get_by_role("button", name="Materialize all").click()
    person.looks("partitions")
    person.picks(run_key(ARM.name, 0))
    person.looks("partition")
    page.get_by_role("dialog").get_by_role("button", name="Launch 1 run").click()

    page.get_by_role("dialog").wait_for(state="hidden")
    person.goes("/runs")
    page.get_by_text(f"{ARM.name}|0").locator("visible=true").first.wait_for()
    page.locator("a[href^='/runs/']").filter(has_text=re.compile(r"^[0-9a-f]{8}$")).first.click()  # the newest
    page.get_by_placeholder("Filter…").fill("train:")
    page.get_by_text(re.compile(r"train: step \d+ of 100 \(\d+ %\), .* left")).first.wait_for()
    person.looks("progress")
    person.sees("Success")
    page.get_by_placeholder("Filter…").fill("")
    page.keyboard.press("Escape")
    person.looks("finished")

    person.goes("/assets/rotation?view=events")
    image = person.opens("figure").get_by_role("img").and_(page.locator("img"))
    image.wait_for()
    assert image.evaluate("picture => picture.complete && picture.naturalWidth") == 560
    person.looks("figure")
    page.get_by_role("button", name="Close").click()
    person.looks("materialisation")
    link = page.locator("a[href$='/tiny/index.html']").first.get_attribute("href")
    with pytest.raises(urllib.error.HTTPError) as absent:
        urllib.request.urlopen(link, timeout=30)
    assert absent.value.code == 404 and b"No report of tiny yet" in absent.value.read()

    person.goes("/assets/trajectory?view=checks")
    person.sees("snapshots_readable")
    person.sees("Passed")
    person.looks("check")

    person.goes(f"/runs/{refused}")
    person.sees("Failure")
    page.get_by_text(re.compile("Failure: study qwen3-8b has no seed 2; it has: 0")).last.wait_for()
    person.looks("failure")
