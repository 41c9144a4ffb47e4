"""A whole study as one backfill of a running Dagster: `opd study backfill NAME` starts `python -m assets.backfill`.

The request becomes partitions; then a backfill of every asset for these arms and seeds is posted to the webserver's
GraphQL. Dagster's daemon launches the runs: models, anchors, runs, then the comparison; descendants of a failure do not
start. What the store already holds is reused. Exit codes: 0 requested, 2 bad input.
"""

import argparse
import json
import sys
import urllib.error
import urllib.request
from typing import Any

from assets import exhibits, failures, offers
from opd_ops.recipe import Recipe
from pipelines.runs.geometry.measuring import TABLES, is_measured
from pipelines.runs.trajectories.training import parents, references
from pipelines.store.objects import Store, default_uri
from pipelines.store.trajectory import Trajectory
from pipelines.studies.catalog import find_recipe, find_study, study_arg
from pipelines.studies.study import Study

URL = "http://127.0.0.1:3000"  # of `make ui`
TIMEOUT = 60.0  # seconds
REPOSITORY = '{assetNodes(assetKeys: [{path: ["trajectory"]}]) {repository {name location {name}}}}'
RUNS = ("trajectory", "training", "evaluation", *TABLES)
COMPARISON = ("regime", "predictions", "verdicts", "report")
LAUNCH = """
mutation Backfill($params: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $params) {
    __typename
    ... on LaunchBackfillSuccess { backfillId }
    ... on PythonError { message }
    ... on UnauthorizedError { message }
    ... on PartitionKeysNotFoundError { message }
  }
}
"""


def selection(study: Study, arms: list[Recipe], seeds: list[int]) -> dict[str, list[str]]:
    """Partitions by asset, without empty ones."""
    asked = offers.of_runs(study, arms, seeds)
    chosen = {
        "base": asked["studies"],
        "teacher": asked["teachers"],
        "anchor": asked["anchors"],
        **{asset: asked["runs"] for asset in RUNS},
        **{asset: asked["studies"] for asset in COMPARISON},
        **{item.key: asked["exhibits"] for item in exhibits.list_exhibits(study)},
    }
    return {asset: keys for asset, keys in chosen.items() if keys}


def require_order(store: Store, study: Study, arms: list[Recipe], seeds: list[int]) -> None:
    """Check that no requested run descends from another, since Dagster orders models, anchors and runs only.

    Errors: ValueError naming a run that must exist first.
    """
    ordered = {(model.name, 0) for model in study.models} | {(a.name, seed) for a in study.anchors() for seed in seeds}
    for recipe, seed in ((recipe, seed) for recipe in arms for seed in seeds):
        for name, number in parents(recipe, seed):
            read = (name, number) in references(recipe, seed)
            done = Trajectory(store, name, number).end() is not None
            if done and read:
                done = is_measured(store, find_recipe(name), number, study.measurement)
            if not done and (read or (name, number) not in ordered):
                raise ValueError(
                    f"{recipe.name} seed {seed} needs {name} seed {number}, which is not "
                    f"{'measured' if read else 'complete'}, and a backfill would not wait for it: backfill it first, "
                    f"or use `opd study run {study_arg(study.name)}`, which orders runs"
                )


def params(study: Study, chosen: dict[str, list[str]], title: str) -> dict[str, Any]:
    """LaunchBackfillParams of Dagster's GraphQL."""
    return {
        "title": title,
        "tags": [{"key": "opd/study", "value": study.name}],
        "partitionsByAssets": [
            {
                "assetKey": {"path": [asset]},
                "partitions": {"ranges": [{"start": key, "end": key} for key in keys]},
            }
            for asset, keys in chosen.items()
        ],
    }


def post(url: str, query: str, variables: dict[str, Any]) -> dict[str, Any]:
    """The response of Dagster's webserver. Errors: ValueError in one line if no Dagster answers."""
    body = json.dumps({"query": query, "variables": variables}).encode()
    request = urllib.request.Request(f"{url.rstrip('/')}/graphql", body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
            found = json.load(answer)
    except (OSError, ValueError) as error:
        if isinstance(error, urllib.error.HTTPError) and error.code == 403:
            line = error.read().decode(errors="replace").partition("\n")[0]
            raise ValueError(f"Dagster at {url} refuses: {line.removeprefix('error: ')}") from None
        raise ValueError(f"no Dagster answers at {url} ({error}); start it with `make ui`, or name its --url") from None
    if found.get("errors"):
        raise ValueError(f"Dagster at {url} refuses: {found['errors'][0]['message'].splitlines()[0]}")
    return found["data"]


def offer(url: str, asked: offers.Offers) -> None:
    """Add the missing partitions to the Dagster at `url`. Errors: ValueError in one line, as for `post`."""
    nodes = post(url, REPOSITORY, {})["assetNodes"]
    if not nodes:
        raise ValueError(f"Dagster at {url} has no asset `trajectory`: it serves another code location, or none")
    repository = nodes[0]["repository"]
    selector = {"repositoryName": repository["name"], "repositoryLocationName": repository["location"]["name"]}
    additions = [
        f"k{number}: addDynamicPartition(repositorySelector: $selector, partitionsDefName: {json.dumps(name)}, "
        f"partitionKey: {json.dumps(key)}) {{__typename ... on PythonError {{message}} "
        "... on UnauthorizedError {message}}"
        for number, (name, key) in enumerate((name, key) for name, keys in asked.items() for key in keys)
    ]
    answers = post(url, f"mutation($selector: RepositorySelector!) {{{' '.join(additions)}}}", {"selector": selector})
    if refused := [answer["message"] for answer in answers.values() if "message" in answer]:
        raise ValueError(f"Dagster at {url} refuses: {refused[0].strip().splitlines()[0]}")


def backfill(name: str, suites: list[str], recipes: list[str], seeds: list[int], url: str) -> int:
    """Request a backfill and print its name; returns the exit code."""
    try:
        study, store = find_study(name), Store(default_uri())
        arms, numbers = study.select(suites, recipes, seeds)
        require_order(store, study, arms, numbers)
        chosen = selection(study, arms, numbers)
        offer(url, offers.of_runs(study, arms, numbers))
        title = f"{study.name}, suite {', '.join(suites)}: {len(arms)} arms, {len(numbers)} seeds"
        answer = post(url, LAUNCH, {"params": params(study, chosen, title)})["launchPartitionBackfill"]
        if "backfillId" not in answer:
            said = answer.get("message") or answer["__typename"]
            raise ValueError(f"Dagster at {url} refuses: {said.strip().splitlines()[0]}")
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"backfill {answer['backfillId']} of {title}\n{url.rstrip('/')}/runs/b/{answer['backfillId']}")
    return 0


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m assets.backfill", description=__doc__)
    parser.add_argument("study")
    parser.add_argument("--suite", action="append", default=[])
    parser.add_argument("--recipe", action="append", default=[])
    parser.add_argument("--seed", action="append", type=int, default=[])
    parser.add_argument("--url", default=URL)
    given = parser.parse_args(arguments)
    return backfill(given.study, given.suite or ["core"], given.recipe, given.seed, given.url)


if __name__ == "__main__":
    sys.exit(failures.run_command(lambda: main(sys.argv[1:])))
