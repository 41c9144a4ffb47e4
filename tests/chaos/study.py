"""A small study through Dagster and Ray, as `opd study run` executes it, and what its store holds at the end."""

import os
import subprocess
import sys
from pathlib import Path

from pipelines.store.objects import Store
from tests.chaos.kills import Undisturbed, kept
from tests.e2e import small

ATTEMPTS = 3  # on a machine so busy that Ray does not start in time


class UndisturbedStudy(Undisturbed):
    """One arm trained, measured and compared over planted parents, by the command that is disturbed elsewhere."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.runs = folder / "undisturbed-study", 1
        store = Store(f"file://{self.folder}")
        small.plant(store)
        self.parents = kept(store)
        command, more = self.command(store)
        inherited = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
        ended = None
        for _ in range(ATTEMPTS):
            ended = subprocess.run(command, env=inherited | more, capture_output=True, text=True)
            if ended.returncode == 0:
                break
        else:
            raise RuntimeError(f"{' '.join(command)} ended with {ended and (ended.returncode, ended.stderr)}")
        self.whole = kept(store)

    def command(self, store: Store) -> tuple[list[str], dict[str, str]]:
        home = Path(store.path("")).with_suffix(".dagster")
        return [sys.executable, "-m", "pipelines.cli", *small.ARGUMENTS], {
            "OPD_STORE": store.uri,
            "DAGSTER_HOME": str(home),
        }
