"""`opd tables`: list the tables with their row counts, explain one, or print the data dictionary."""

import argparse

from pipelines.cli.layout import fit_table, wrap_text
from pipelines.cli.names import describe_unknown
from pipelines.cli.options import Commands, store_of


def register(commands: Commands) -> None:
    top = commands.add_parser("tables", help="list the tables, or explain one")
    top.description = "List the tables with their rows, or explain the columns of one."
    top.add_argument("name", nargs="?", metavar="TABLE")
    top.add_argument("--dictionary", action="store_true", help="print every table and column as Markdown")
    top.add_argument("--out", metavar="URI", help="another store than OPD_STORE or .opd/store")
    top.set_defaults(command=show_tables)


def show_tables(args: argparse.Namespace) -> int:
    import polars as pl

    from pipelines.lake import TABLES, scan
    from pipelines.lake.dictionary import render_dictionary

    if args.dictionary:
        if args.name or args.out:
            raise ValueError("--dictionary is of all tables and no store; leave the others out")
        print(render_dictionary(), end="")
        return 0
    store = store_of(args)
    if args.name is None:
        lines = [["table", "rows", "runs", "what a row is"]]
        for name, table in TABLES.items():
            rows = scan(name, store.uri)
            groups = rows.select(pl.struct(table.by).n_unique()).collect().item()
            lines.append([name, f"{rows.select(pl.len()).collect().item():,}", str(groups), table.meaning])
        print(f"{fit_table(lines)}\n\n{wrap_text('`opd tables TABLE` explains the columns')}\n{store.location('lake')}")
        return 0
    if args.name not in TABLES:
        raise describe_unknown("unknown table", args.name, TABLES, "known")
    lines = [["column", "type", "unit", "meaning"]]
    lines += [[column.name, str(column.dtype), column.unit, column.meaning] for column in TABLES[args.name].columns]
    print(fit_table(lines))
    return 0
