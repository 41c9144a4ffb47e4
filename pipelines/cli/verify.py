"""`opd verify`: read a store again and report what differs from what was written."""

import argparse
import re
import secrets

from pipelines.cli.layout import wrap_text
from pipelines.cli.names import list_registered, resolve_recipe
from pipelines.cli.options import Commands, store_at
from pipelines.store.objects import Store

DAMAGE = 5  # exit code


def register(commands: Commands) -> None:
    top = commands.add_parser("verify", help="read a store again, and name what is damaged, missing or left behind")
    top.description = (
        "Read every object of a store again and hash it; name what is damaged, missing, left behind by what was "
        "stopped, of another layout or foreign, with what to do about it. Nothing is changed. Exit code 5 where "
        "anything is found; a run that is being trained may show what it is just writing."
    )
    top.epilog = "Example: opd verify s3://bucket/store --sample 0.1; opd verify --run tiny.opd/0 --deep"
    top.add_argument("uri", nargs="?", metavar="URI", help="the store (default: OPD_STORE, or .opd/store here)")
    top.add_argument("--run", action="append", default=[], metavar="RECIPE/SEED", help="only this run; may be repeated")
    top.add_argument(
        "--sample",
        metavar="N",
        help="read again only this many objects, or this share of them (0.1, or 10%%); names, run.json, end.json and "
        "manifests are all looked at",
    )
    top.add_argument("--sample-seed", type=int, metavar="N", help="draw the sample that this seed drew before")
    top.add_argument("--deep", action="store_true", help="also decode the weights, and hash them as plain files")
    top.set_defaults(command=run_verify)


def run_verify(args: argparse.Namespace) -> int:
    import time

    from pipelines.cli.plan import format_bytes
    from pipelines.maintenance.audit import audit
    from pipelines.maintenance.finding import KINDS
    from pipelines.progress import Board, duration

    sample = None if args.sample is None else sample_of(args.sample)
    if args.sample_seed is not None and sample is None:
        raise ValueError(f"--sample-seed {args.sample_seed} goes with --sample; add --sample, or leave it out")
    seed = secrets.randbelow(10**6) if args.sample_seed is None else args.sample_seed
    store = store_at(args.uri)
    runs = [run_of(store, text) for text in args.run]
    begun, board = time.monotonic(), Board({"verify": 1.0})
    try:
        report = audit(
            store,
            runs=runs or None,
            sample=sample,
            seed=seed,
            deep=args.deep,
            progress=lambda done, of: board.update(
                "verify", done / max(1, of), f"{format_bytes(done)} of {format_bytes(of)}"
            ),
        )
    finally:
        board.close()
    counts = []
    for kind, meaning in KINDS.items():
        if of_kind := [finding for finding in report.findings if finding.kind == kind]:
            print(wrap_text(f"{kind}: {meaning}"))
            for finding in of_kind:
                print(wrap_text(str(finding), "  ", "    "))
            counts.append(f"{len(of_kind)} {kind}")
    drawn = "" if sample is None else f"a sample of {args.sample} (--sample-seed {seed}), "
    hashed = f"{report.hashed:,} of {report.snapshots:,} snapshots read again, {format_bytes(report.read)}"
    print(
        wrap_text(
            f"{store.uri}: {report.objects:,} objects, {format_bytes(report.nbytes)}; {drawn}{hashed} in "
            f"{duration(time.monotonic() - begun)}: {', '.join(counts) or 'nothing is wrong'}"
        )
    )
    return DAMAGE if report.findings else 0


def sample_of(text: str) -> int | float:
    """Parse a number of objects, or a share of them as a float. Errors: ValueError in one line."""
    if re.fullmatch(r"[1-9]\d{0,17}", text):
        return int(text)
    try:
        share = float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        share = 0.0
    if not 0 < share <= 1:
        raise ValueError(f"--sample {text} is neither a number of objects nor a share; write 50, 0.1 or 10%")
    return share


def run_of(store: Store, text: str) -> tuple[str, int]:
    """Parse RECIPE/SEED; the recipe is resolved by `names.resolve_recipe`. Errors: ValueError in one line."""
    from pipelines.maintenance.inventory import parse_run

    recipe, seed = parse_run(text)
    if seed is None:
        raise ValueError(f"--run {text} names no seed; write RECIPE/SEED, as in {recipe}/0")
    return resolve_recipe(recipe, list_registered(store), f"{store.uri} holds no run"), seed
