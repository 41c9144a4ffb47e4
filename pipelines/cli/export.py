"""`opd export` and `opd import`: a step as a Hugging Face folder, and runs between stores."""

import argparse
from typing import TYPE_CHECKING

from pipelines.cli.layout import wrap_text
from pipelines.cli.names import list_registered, resolve_run
from pipelines.cli.options import Commands, store_at
from pipelines.store.objects import Store, default_uri, normalise

if TYPE_CHECKING:
    from pipelines.maintenance.copying import Moved

RUN = "RECIPE or RECIPE/SEED; the seed may be left out where the store has one only"


def register(commands: Commands) -> None:
    top = commands.add_parser("export", help="a step as a Hugging Face folder, or a run into another store")
    top.description = (
        "With STEP and DIR: restore one snapshot bit for bit, as a Hugging Face folder that "
        "AutoModelForCausalLM.from_pretrained loads; DIR must be absent or empty. With --to: copy the whole run to "
        "another store, with digests checked on both sides; what is there already is not sent again, a damaged copy "
        "is repaired, and another run of that name is refused."
    )
    top.epilog = (
        "Examples: opd export tiny.opd/0 last ./model; opd export tiny.opd/0 50 ./served --dtype bf16; "
        "opd export tiny.opd/0 --to s3://bucket/store"
    )
    top.add_argument("run", metavar="RUN", help=RUN)
    top.add_argument("step", nargs="?", metavar="STEP", help="an optimizer step with a snapshot, or `last`")
    top.add_argument("dir", nargs="?", metavar="DIR", help="a local folder, absent or empty")
    top.add_argument("--to", metavar="URI", help="copy the whole run to this store instead")
    top.add_argument(
        "--dtype",
        choices=("master", "bf16"),
        help="master: the fp32 weights as trained, bit for bit (default); bf16: as they are served and evaluated",
    )
    _add_options(top)
    top.set_defaults(command=run_export)
    back = commands.add_parser("import", help="a run from another store")
    back.description = "Copy a whole run from another store into OPD_STORE, as `opd export --to` does the other way."
    back.epilog = "Example: opd import s3://bucket/store tiny.opd/0"
    back.add_argument("uri", metavar="URI", help="the store that holds the run")
    back.add_argument("run", metavar="RUN", help=RUN)
    _add_options(back)
    back.set_defaults(command=run_import)


def _add_options(top: argparse.ArgumentParser) -> None:
    top.add_argument("--seed", type=int, metavar="N", help="the run's seed, where RUN names none")
    top.add_argument(
        "--weights-only",
        action="store_true",
        help="of a copied run, leave rollouts, measurements and tables behind",
    )


def run_export(args: argparse.Namespace) -> int:
    step_options = [name for name in ("step", "dir") if getattr(args, name) is not None]
    if args.to is not None:
        if step_options or args.dtype:
            raise ValueError("--to copies a whole run; leave STEP, DIR and --dtype out, or leave --to out")
        store = store_at(None)
        return _move(store, Store(normalise(args.to)), args)
    if args.weights_only:
        raise ValueError("--weights-only goes with --to URI; a step is exported without anything else as it is")
    if len(step_options) < 2:
        raise ValueError("give STEP and DIR for a Hugging Face folder, or --to URI for a copy of the run")
    return _folder(store_at(None), args)


def run_import(args: argparse.Namespace) -> int:
    return _move(store_at(args.uri), Store(default_uri()), args)


def _folder(store: Store, args: argparse.Namespace) -> int:
    from pipelines.maintenance.exporting import TOKENIZER, export, require_free
    from pipelines.store.trajectory import Trajectory

    recipe, seed = resolve_run(store, args.run, args.seed, list_registered(store))
    run, step = Trajectory(store, recipe, seed), args.step
    if step == "last":
        step = max(run.steps(), default=0)
    elif not step.isdecimal():
        raise ValueError(f"STEP {step!r} is no step; write a number, or last")
    require_free(args.dir)
    run.require_steps(int(step))
    names = export(store, recipe, seed, int(step), args.dir, args.dtype or "master")
    without = "" if set(names) & set(TOKENIZER) else " (no tokenizer: none is at hand)"
    print(wrap_text(f"{run.prefix} step {int(step)}, {args.dtype or 'master'}: {args.dir}{without}"))
    return 0


def _move(source: Store, target: Store, args: argparse.Namespace) -> int:
    from pipelines.cli.plan import format_bytes
    from pipelines.maintenance.copying import copy_run
    from pipelines.progress import Board

    recipe, seed = resolve_run(source, args.run, args.seed, list_registered(source))
    board = Board({"copy": 1.0})
    try:
        moved: Moved = copy_run(
            source,
            target,
            recipe,
            seed,
            weights_only=args.weights_only,
            progress=lambda done, of: board.update(
                "copy", done / max(1, of), f"{format_bytes(done)} of {format_bytes(of)}"
            ),
        )
    finally:
        board.close()
    for key in moved.kept:
        print(f"kept as it is in {target.uri}: {key}")
    for key in moved.left:
        print(f"left behind: {key}")
    copied = f"{len(moved.copied):,} objects, {format_bytes(moved.nbytes)}, copied to {target.uri}"
    print(wrap_text(f"{recipe} seed {seed}: {copied}; {len(moved.there):,} were there"))
    return 0
