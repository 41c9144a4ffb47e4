"""`opd transfer`: evaluate the finished runs of a study on other families of its task."""

import argparse
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from opd_ops.recipe import Recipe
from pipelines.cli.layout import stack_table, wrap_text
from pipelines.cli.names import resolve_recipe, resolve_study
from pipelines.cli.options import STUDY, Commands, add_workers, require_workers
from pipelines.store.objects import Store, default_uri
from pipelines.studies.catalog import study_arg
from pipelines.studies.families import study_families
from pipelines.studies.study import Study

if TYPE_CHECKING:
    import polars as pl


def register(commands: Commands) -> None:
    top = commands.add_parser("transfer", help="accuracy of finished runs on other families of their task")
    top.description = (
        "Evaluate the first and last weights of a study's complete runs on held-out problems that none was trained "
        "on, and say whether early locking goes with accuracy. What is there is reused; no run is changed."
    )
    top.add_argument("name", metavar="STUDY", help=STUDY)
    top.add_argument("--recipe", action="append", default=[], metavar="R", help="only this recipe; may be repeated")
    top.add_argument("--seed", action="append", default=[], type=int, metavar="N", help="only this seed; repeatable")
    add_workers(top)
    top.set_defaults(command=run_transfer)


def run_transfer(args: argparse.Namespace) -> int:
    from pipelines.progress import Board
    from pipelines.regimes.prediction.text import describe_prediction
    from pipelines.runs.cluster.attach import cluster, use_one_thread
    from pipelines.runs.verdicts.predicting import write_predictions
    from pipelines.runs.verdicts.transfer import evaluate_transfers, is_transferred

    require_workers(args)
    study, store = resolve_study(args.name), Store(default_uri())
    runs = list_finished(store, study, args.recipe, args.seed)
    store.require_writable()
    left = [run for run in runs if not is_transferred(store, *run)]
    board = Board({"transfer": 1.0})
    try:
        if left and not args.workers:
            use_one_thread()
        with cluster(args.workers) if left and args.workers else nullcontext():
            evaluate_transfers(
                store,
                left,
                serial=not args.workers,
                done=lambda count: board.update("transfer", count / len(left), f"{count} of {len(left)} runs"),
            )
    finally:
        board.close()
    others = "" if len(left) == len(runs) else ", the others were already"
    print(wrap_text(f"{len(runs)} runs on {', '.join(study_families(study.name))}: {len(left)} evaluated{others}"))
    rows = write_predictions(store, study)
    if not rows.is_empty():
        print(f"{wrap_text(describe_prediction(rows))}\n\n{stack_table(_correlations(rows))}\n")
        print(
            wrap_text("rank correlations over runs with Sim_16 at these shares of training; * its interval excludes 0")
        )
    print("rows: opd tables (transfer, predictions)")
    return 0


def _correlations(rows: "pl.DataFrame") -> list[list[str]]:
    """A row for each outcome, over all runs and without arm means; a column for each view and share of the steps."""
    spearman = rows.filter(coefficient="spearman")
    spearman = spearman.with_columns(spearman["family"].fill_null(""))
    columns = spearman.select("view", "share").unique(maintain_order=True).rows()
    cells = {
        (row["outcome"], row["family"], row["scope"], row["view"], row["share"]): row for row in spearman.to_dicts()
    }
    views = [view if place == 0 or view != columns[place - 1][0] else "" for place, (view, _) in enumerate(columns)]
    lines = [["", *views], ["", *(f"{100 * share:g} %" for _, share in columns)]]
    for outcome, family in spearman.select("outcome", "family").unique(maintain_order=True).iter_rows():
        for scope in ("pooled", "within arms"):
            values = [_correlation(cells.get((outcome, family, scope, *column))) for column in columns]
            lines.append([f"{outcome} {family}".rstrip() + f", {scope}", *values])
    return lines


def _correlation(row: dict[str, Any] | None) -> str:
    if row is None or row["correlation"] is None:
        return "-"
    decided = row["low"] is not None and (row["low"] > 0 or row["high"] < 0)
    return f"{row['correlation']:.2f}{' *' if decided else ''}"


def list_finished(store: Store, study: Study, recipes: list[str], seeds: list[int]) -> list[tuple[Recipe, int]]:
    """The complete runs that the options select; all by default. Errors: ValueError for unknown names, or if there are
    none.
    """
    from pipelines.runs.trajectories.training import complete

    study_families(study.name)
    known = {recipe.name: recipe for recipe in study.every_arm()}
    recipes = [resolve_recipe(name, known, f"study {study.name} has no recipe") for name in recipes]
    for seed in seeds:
        if seed not in study.seeds:
            raise ValueError(f"study {study.name} has no seed {seed}; it has: {', '.join(map(str, study.seeds))}")
    wanted = [(known[name], seed) for name in recipes or known for seed in seeds or study.seeds]
    complete_runs = [(recipe, seed) for recipe, seed in wanted if complete(store, recipe, seed)]
    if not complete_runs:
        raise ValueError(f"{store.uri} holds no complete run of these: run `opd study run {study_arg(study.name)}`")
    return complete_runs
