import subprocess

import pytest

from tests.bench import environment
from tests.bench.shapes import Extents
from tests.bench.sizes import Sizes


@pytest.fixture
def tiny():
    """Sizes at which every figure takes a second."""
    layers = tuple(Extents(hidden=96, heads=96, kv=72, mlp=160).decoder(2))
    return Sizes(
        wide=(96, 160), ten=layers[:3], square=80, counts=(1, 2), model=layers, k=8,
        snapshots=3, kept=(12, 10), steps=(2, 4), partitions=10, rows=40, repeats=1, install=False,
    )  # fmt: skip


@pytest.fixture
def no_network(monkeypatch):
    """An installer that fails as pip does offline; returns the commands that were tried."""
    tried = []

    def run(command, **_):
        tried.append(command)
        failed = "pip" in command
        return subprocess.CompletedProcess(command, int(failed), "", "WARNING: Retrying\nERROR: No matching\n" * failed)

    monkeypatch.setattr(environment.subprocess, "run", run)
    return tried
