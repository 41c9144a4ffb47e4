"""`opd report`: write a study's verdicts and report again."""

import argparse

from pipelines.cli import study as studies
from pipelines.cli.options import Commands, location
from pipelines.store.objects import Store, default_uri
from pipelines.studies.catalog import find_study


def register(commands: Commands) -> None:
    top = commands.add_parser("report", help="write a study's verdicts and report again")
    top.description = (
        "Decide a study's verdicts and write its report again, from the tables as they are."
    )
    top.add_argument("name", metavar="STUDY")
    top.set_defaults(command=write_report)


def write_report(given: argparse.Namespace) -> int:
    from pipelines.runs import comparing

    study, store = find_study(given.name), Store(default_uri())
    complete, of = studies.progress(store, study)
    if not complete:
        raise ValueError(f"{store.uri} holds no measured run of study {study.name}: run `opd study run {study.name}`")
    store.require_writable()
    comparing.compare(store, study)
    print(f"{complete} of {of} runs; report: {location(store, comparing.publish(store, study))}")
    return 0
