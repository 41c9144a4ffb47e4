"""`opd report`: write the report of a study, with its verdicts, or of an import again."""

import argparse
from pathlib import Path

from pipelines.cli import study as studies
from pipelines.cli.names import IMPORTED, describe_unknown, list_registered, resolve_study
from pipelines.cli.options import STUDY, Commands
from pipelines.cli.study_summary import describe_page
from pipelines.runs.cluster import free_memory
from pipelines.store.objects import Store, default_uri
from pipelines.studies import catalog


def register(commands: Commands) -> None:
    top = commands.add_parser("report", help="write the report of a study or an import again")
    top.description = (
        "Decide a study's verdicts and write its report again, from the tables as they are; or write the page of "
        "imported checkpoints again, with their regime beside the reference runs that the store holds by now."
    )
    top.epilog = "Example: opd report tiny; opd report mine --save mine.html"
    top.add_argument("name", metavar="NAME", help=f"{STUDY}; or an import's name")
    top.add_argument("--save", metavar="FILE", help="also a copy of the page here, as of a store that is elsewhere")
    top.set_defaults(command=write_report)


def write_report(args: argparse.Namespace) -> int:
    from pipelines.runs.verdicts import comparing, reporting

    free_memory.require_address_space()
    store = Store(default_uri())
    if args.save is not None:
        require_file(args.save)
    if (recipe := find_import(store, args.name)) is not None:
        name, key = recipe.removeprefix(IMPORTED), reporting.publish_import(store, recipe)
    else:
        study = resolve_study(args.name)
        complete, of = studies.count_progress(store, study)
        if not complete:
            command = f"opd study run {catalog.study_arg(study.name)}"
            raise ValueError(f"{store.uri} holds no measured run of study {study.name}: run `{command}`")
        store.require_writable()
        comparing.compare_study(store, study)
        name, key = study.name, comparing.publish_report(store, study)
        print(f"{complete} of {of} runs measured")
    if args.save is not None:
        Path(args.save).write_bytes(store.read(key))
        print(f"saved: {args.save}")
    print("\n".join(describe_page(store, key, name)))
    return 0


def find_import(store: Store, name: str) -> str | None:
    """The recipe of an import of that name, with or without its prefix; None if a study or a file has the name.

    Errors: ValueError if neither a study nor an import has it.
    """
    if name.startswith(IMPORTED):
        return name
    known = catalog.list_studies()
    if name in known or any(mark in name for mark in "/:.\\"):
        return None
    imports = [recipe for recipe in list_registered(store) if recipe.startswith(IMPORTED)]
    if f"{IMPORTED}{name}" in imports:
        return f"{IMPORTED}{name}"
    names = [*known, *(recipe.removeprefix(IMPORTED) for recipe in imports)]
    raise describe_unknown("unknown study or import", name, names, "known")


def require_file(path: str) -> None:
    """Check that a file can be written. Errors: ValueError if its folder does not exist, or if it is a folder."""
    if Path(path).is_dir():
        raise ValueError(f"--save {path} is a folder; name a file, such as {Path(path) / 'page.html'}")
    if not Path(path).absolute().parent.is_dir():
        raise ValueError(f"--save {path}: the folder {Path(path).absolute().parent} does not exist; make it first")
