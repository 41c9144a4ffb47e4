"""`opd report`: write the report of a study, with its verdicts, or of an imported trajectory again."""

import argparse

from pipelines.cli import study as studies
from pipelines.cli.options import STUDY, Commands
from pipelines.runs.cluster import room
from pipelines.store.objects import Store, default_uri
from pipelines.studies.catalog import find_study, spell


def register(commands: Commands) -> None:
    top = commands.add_parser("report", help="write the report of a study or an import again")
    top.description = (
        "Decide a study's verdicts and write its report again, from the tables as they are; or write the page of "
        "imported checkpoints again, with their regime beside the reference runs that the store holds by now."
    )
    top.add_argument("name", metavar="NAME", help=f"{STUDY}; or an import, external.NAME")
    top.set_defaults(command=write_report)


def write_report(given: argparse.Namespace) -> int:
    from pipelines.runs.verdicts import comparing, reporting

    room.require_addresses()
    store = Store(default_uri())
    if given.name.startswith(reporting.IMPORTED):
        print(f"report: {store.location(reporting.publish(store, given.name))}")
        return 0
    study = find_study(given.name)
    complete, of = studies.progress(store, study)
    if not complete:
        raise ValueError(
            f"{store.uri} holds no measured run of study {study.name}: run `opd study run {spell(study.name)}`"
        )
    store.require_writable()
    comparing.compare(store, study)
    print(f"{complete} of {of} runs; report: {store.location(comparing.publish(store, study))}")
    return 0
