"""`opd regime`: which of SFT, OPD and RLVR a measured run is like."""

import argparse

from pipelines.cli.options import Commands
from pipelines.store.objects import Store, default_uri
from pipelines.studies.catalog import find_study, studies

DEFAULT = "tiny"  # whose references imports are compared with


def register(commands: Commands) -> None:
    top = commands.add_parser("regime", help="which of SFT, OPD and RLVR a run is like")
    top.description = (
        "Compare a measured run with the arms sft, opd and rlvr of a study, over their seeds, where all of them have "
        "moved their weights equally far: the distance to each in every diagnostic, and a verdict, which may be that "
        "one cannot tell. The numbers are kept in the table `regime`."
    )
    top.epilog = "Example: opd regime tiny.sft-matched --seed 1; opd regime external.mine --reference tiny"
    top.add_argument("name", metavar="NAME", help="a recipe, such as tiny.opd, or an import, external.NAME or NAME")
    top.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the run (default: 0)")
    top.add_argument("--step", type=int, metavar="S", help="a measured step of the run (default: the last)")
    top.add_argument(
        "--reference", metavar="STUDY", help=f"study of the references (default: the run's own, else {DEFAULT})"
    )
    top.set_defaults(command=show_regime)


def show_regime(given: argparse.Namespace) -> int:
    from pipelines.regimes.words import terminal
    from pipelines.runs.verdicts import judging

    store = Store(default_uri())
    recipe = _recipe(store, given.name, given.seed)
    own = recipe.partition(".")[0]
    study = find_study(given.reference or (own if own in studies() else DEFAULT)).name
    comparisons = judging.judge(
        judging.read(store, [(recipe, given.seed)], study), recipe, given.seed, study, given.step
    )
    if not comparisons:
        raise ValueError(f"{recipe} seed {given.seed} has no projection that moved; there is nothing to compare")
    print(terminal(comparisons), flush=True)
    judging.keep(store, comparisons)
    return 0


def _recipe(store: Store, name: str, seed: int) -> str:
    """The measured recipe of that name. Errors: ValueError naming those there are."""
    from pipelines.runs.verdicts import judging

    known = judging.known(store)
    for recipe in (name, f"external.{name}"):
        if recipe in known:
            if seed not in known[recipe]:
                seeds = ", ".join(map(str, known[recipe]))
                raise ValueError(f"{recipe} is not measured for seed {seed}; it is for: {seeds}")
            return recipe
    raise ValueError(f"{store.uri} holds no measured run {name!r}; it holds: {', '.join(known) or 'none'}")
