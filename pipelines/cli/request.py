"""The options that `opd measure` and `opd plan` share, and the request they describe."""

import argparse
from dataclasses import replace
from typing import TYPE_CHECKING

from opd_ops.geometry import TABLES
from pipelines.cli.options import add_workers, parse_address, require_workers, store_of
from pipelines.studies.pairs import require_pairs
from pipelines.studies.steps import FEW, MOST, require_choice, require_known
from pipelines.studies.study import Measurement

if TYPE_CHECKING:
    from pipelines.runs.external.checkpoint_folder import Given
    from pipelines.runs.external.imports import Import

REF = (
    "REF is a Hugging Face folder with safetensors, sharded or not, or one .safetensors file, by path or s3:// URI; "
    "ORG/NAME[@REVISION] in the local hub cache; or a snapshot of this project."
)


def add_options(top: argparse.ArgumentParser) -> None:
    top.add_argument(
        "--base",
        type=parse_address,
        metavar="REF",
        help="the weights that training started from (W0); default: step 0 of --trajectory",
    )
    which = top.add_mutually_exclusive_group()
    which.add_argument(
        "--snapshot", action="append", default=[], metavar="STEP=REF", help="a checkpoint and its step; repeat for more"
    )
    which.add_argument(
        "--trajectory",
        type=parse_address,
        metavar="PREFIX",
        help="a folder or URI prefix of checkpoints with steps in their names",
    )
    top.add_argument("--k", default="16", metavar="K,K", help="ranks of the subspaces compared (default: 16)")
    top.add_argument(
        "--roles", metavar="R,R", help="only these of q k v o gate up down embed head norm bias other (default: all)"
    )
    top.add_argument("--diagnostics", metavar="T,T", help=f"only these tables of {' '.join(TABLES)} (default: all)")
    for option, what, named in (("--nulls-at", "nulls", "S,S and the last"), ("--spectra-at", "spectral_drift", "S,S")):
        top.add_argument(
            option,
            default=FEW,
            metavar="STEPS",
            help=f"steps of {what}: all, few ({MOST} at most, log-spaced, the first and the last among them) or "
            f"{named} (default: few)",
        )
    top.add_argument("--name", help="name of the trajectory, a-z 0-9 . _ - (default: from the base's stamp)")
    top.add_argument("--out", metavar="URI", help="the store to write to (default: OPD_STORE or .opd/store)")
    top.add_argument(
        "--locking-pairs",
        default=FEW,
        metavar="PAIRS",
        help="pairs of snapshots in the table locking: few (to the last, the one before and some others; the "
        "default), or all. What was measured gives any pair later",
    )
    add_workers(top)


def parse_measurement(args: argparse.Namespace) -> Measurement:
    """Parse the measurement. Errors: ValueError for invalid ranks, steps, pairs or tables, and a negative number of
    workers.
    """
    require_workers(args)
    nulls_at, spectra_at = (
        require_choice(f"--{name}-at", getattr(args, f"{name}_at")) for name in ("nulls", "spectra")
    )
    measurement = Measurement(
        k=_ranks(args.k),
        nulls_at=nulls_at,
        spectra_at=spectra_at,
        locking_pairs=require_pairs("--locking-pairs", args.locking_pairs),
    )
    if args.diagnostics is None:
        return measurement
    names = _words("--diagnostics", args.diagnostics, TABLES)
    return replace(measurement, tables=tuple(table for table in TABLES if table in names))


def parse_roles(args: argparse.Namespace) -> tuple[str, ...] | None:
    from pipelines.runs.external.imports import ROLES

    return None if args.roles is None else _words("--roles", args.roles, ROLES)


def open_snapshots(args: argparse.Namespace) -> "Given":
    """The base and snapshots that the options name, or those listed under --trajectory."""
    from pipelines.runs.external.checkpoint_folder import Given, list_checkpoints

    if args.trajectory is not None:
        return list_checkpoints(args.trajectory, args.base)
    if args.base is None:
        raise ValueError("no base; give --base REF, or a --trajectory PREFIX that holds step 0")
    if not args.snapshot:
        raise ValueError("no snapshots to measure; give at least one --snapshot STEP=REF, or --trajectory PREFIX")
    return Given(args.base, [_snapshot(text) for text in args.snapshot])


def plan_request(args: argparse.Namespace) -> "Import":
    """Check the import that a command requests; its notes say what is left out."""
    from pipelines.runs.external import imports

    measurement, checkpoints = parse_measurement(args), open_snapshots(args)
    imported = imports.plan_import(
        store_of(args), checkpoints.base, checkpoints.snapshots, measurement, args.name, parse_roles(args)
    )
    for option, choice in measurement.choices.items():
        require_known(option, choice, imported.steps)
    return replace(imported, notes=checkpoints.notes + imported.notes)


def _snapshot(text: str) -> tuple[int, str]:
    step, separator, ref = text.partition("=")
    if not separator or not (step.strip().isascii() and step.strip().isdecimal()) or not ref.strip():
        empty = " (its address is empty)" if separator and not ref.strip() else ""
        raise ValueError(f"--snapshot {text!r} is not STEP=REF{empty}, such as 100=./step-100")
    return int(step), ref


def _ranks(text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdecimal() and int(part) > 0 for part in parts):
        raise ValueError(f"--k {text!r} is not a list of positive ranks, such as 16,64")
    return tuple(sorted({int(part) for part in parts}))


def _words(option: str, text: str, known: tuple[str, ...]) -> tuple[str, ...]:
    words = tuple(part.strip() for part in text.split(","))
    if unknown := [word for word in words if word not in known]:
        raise ValueError(f"{option} names {unknown[0]!r}; known: {', '.join(known)}")
    return words
