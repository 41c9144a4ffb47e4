"""Dagster's three services with the command lines of compose.yaml, and its runs over HTTP, as the UI asks for them."""

import json
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests import processes

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
SERVICES = ("code-server", "webserver", "daemon")
UP = 180.0  # seconds until a service answers
TRIES = 10  # of a question, a minute each
ENDED = ("SUCCESS", "FAILURE", "CANCELED")

LAUNCH = """
mutation ($params: ExecutionParams!) { launchRun(executionParams: $params) {
  __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message }
  ... on RunConfigValidationInvalid { errors { message } } ... on PipelineNotFoundError { message } } }"""
RUNS = """
query ($filter: RunsFilter) { runsOrError(filter: $filter) { __typename
  ... on Runs { results { runId status jobName startTime endTime tags { key value } } } } }"""
EVENTS = """
query ($run: ID!) { logsForRun(runId: $run) { __typename
  ... on EventConnection { events { __typename
    ... on MessageEvent { message level } ... on ErrorEvent { error { message } } } } } }"""


def command(service: str, ports: Mapping[str, int], home: Path) -> list[str]:
    """The command line of a service in compose.yaml, on loopback, on other ports and in another DAGSTER_HOME."""
    services = yaml.safe_load((DEPLOY / "compose/compose.yaml").read_text())["services"]
    words = [str(word) for word in services[service]["command"]]
    other = {"0.0.0.0": "127.0.0.1", "/opt/dagster/workspace.yaml": str(home / "workspace.yaml")}
    other |= {"4000": str(ports["code-server"]), "3000": str(ports["webserver"])}
    return [str(Path(sys.executable).parent / words[0]), *(other.get(word, word) for word in words[1:])]


def home(folder: Path) -> Path:
    """A DAGSTER_HOME as the image has it."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("dagster.yaml", "workspace.yaml"):
        shutil.copy(DEPLOY / name, folder / name)
    return folder


@dataclass
class Dagster:
    """The services, once started. environment: what the compose file gives them."""

    folder: Path
    environment: Mapping[str, str]

    def __post_init__(self) -> None:
        self.ports: dict[str, int] = dict(zip(("code-server", "webserver"), processes.free_ports(2), strict=True))
        self.home = home(self.folder / "home")
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def address(self) -> str:
        """Of the webserver."""
        return f"http://127.0.0.1:{self.ports['webserver']}"

    @property
    def variables(self) -> dict[str, str]:
        """What tells a process of this cluster where Dagster is."""
        code = {"OPD_CODE_HOST": "127.0.0.1", "OPD_CODE_PORT": str(self.ports["code-server"])}
        return {"DAGSTER_HOME": str(self.home)} | code

    def start(self) -> None:
        """All three, each once the one before answers. Errors: RuntimeError with the last lines of one that fails."""
        for service in SERVICES:
            log = self.folder / f"{service}.log"
            given = dict(self.environment) | self.variables
            self.running[service] = processes.start(command(service, self.ports, self.home), log, given)
            end = time.monotonic() + UP
            while service in self.ports and not self._answers(service):
                if self.running[service].poll() is not None or time.monotonic() > end:
                    raise RuntimeError(f"{service} did not come up: {last(log)}")
                time.sleep(0.3)

    def _answers(self, service: str) -> bool:
        if service != "webserver":
            return processes.answers(self.ports[service])
        try:
            return "repositoriesOrError" in self.ask("{ repositoriesOrError { __typename } }", {})
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False

    def ask(self, query: str, variables: Mapping[str, Any]) -> dict[str, Any]:
        """The data of a GraphQL answer. Errors: RuntimeError with the server's message."""
        body = json.dumps({"query": query, "variables": dict(variables)}).encode()
        request = urllib.request.Request(f"{self.address}/graphql", body, {"Content-Type": "application/json"})
        tries = 1 if query.startswith("\nmutation") else TRIES  # what was asked for may have been done
        while True:
            try:
                with urllib.request.urlopen(request, timeout=60) as response:
                    answer = json.load(response)
                break
            except TimeoutError:  # a machine that is busy with the runs answers late
                if not (tries := tries - 1):
                    raise
        if answer.get("errors"):
            raise RuntimeError("; ".join(error["message"] for error in answer["errors"]))
        return answer["data"]

    def launch(self, job: str, assets: Sequence[str], tags: Mapping[str, str]) -> str:
        """The id of a run of `assets` of a job, which the queue and the run launcher take from here."""
        selector = {
            "repositoryLocationName": "opd",
            "repositoryName": "__repository__",
            "jobName": job,
            "assetSelection": [{"path": [name]} for name in assets] or None,
        }
        given = [{"key": key, "value": value} for key, value in tags.items()]
        params = {"selector": selector, "runConfigData": {}, "mode": "default", "executionMetadata": {"tags": given}}
        answer = self.ask(LAUNCH, {"params": params})["launchRun"]
        if answer["__typename"] != "LaunchRunSuccess":
            raise RuntimeError(f"{job} was not launched: {answer}")
        return answer["run"]["runId"]

    def runs(self) -> list[dict[str, Any]]:
        """All runs, the newest first, their tags as a mapping."""
        found = self.ask(RUNS, {"filter": {}})["runsOrError"]["results"]
        return [run | {"tags": {tag["key"]: tag["value"] for tag in run["tags"]}} for run in found]

    def messages(self, run: str) -> list[str]:
        """What went wrong in a run, in the words of its events."""
        events = self.ask(EVENTS, {"run": run})["logsForRun"].get("events", [])
        errors = [event["error"]["message"].strip() for event in events if event.get("error")]
        wrong = [event for event in events if event.get("level") == "ERROR" or "Failure" in event["__typename"]]
        return [event["message"] for event in wrong if event.get("message")] + errors

    def stop(self) -> None:
        processes.stop([self.running[name] for name in reversed(SERVICES) if name in self.running], number=2)


def last(log: Path, count: int = 8) -> str:
    return " / ".join(log.read_text(errors="replace").splitlines()[-count:])
