"""The command line in this process, and checkpoints to give it."""

import json

import pytest
import torch
from safetensors.torch import save_file

from pipelines import cli
from pipelines.runs.verdicts import reporting

Q, NORM = "model.layers.0.self_attn.q_proj.weight", "model.norm.weight"


def weights(step):
    generator = torch.Generator().manual_seed(1)
    start, drift = (torch.randn(24, 20, generator=generator) for _ in range(2))
    return {Q: start + 0.01 * step * drift, NORM: torch.ones(20) + 0.01 * step}


def save(folder, tensors):
    folder.mkdir(parents=True)
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"tie_word_embeddings": True}))
    return str(folder)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working directory without settings in the environment; the store is its .opd/store."""
    for name in ("OPD_STORE", "DAGSTER_HOME", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    for name in ("OPD_STUDIES", "OPD_TASKS"):
        monkeypatch.setenv(name, "")
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    return work


@pytest.fixture
def folders(tmp_path):
    """A base and its checkpoints of steps 100 and 200, in the Hugging Face layout."""
    return {step: save(tmp_path / f"at-{step}", weights(step)) for step in (0, 100, 200)}


@pytest.fixture
def opd(here, capsys):
    """opd(*arguments): exit code, stdout and stderr."""

    def run(*arguments):
        try:
            code = cli.main([str(argument) for argument in arguments])
        except SystemExit as ended:
            code = ended.code
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def refused(opd, here):
    """refused(*arguments): the one line on stderr of a command that ends with 2 and has written nothing."""

    def run(*arguments):
        before = sorted(here.rglob("*"))
        code, out, err = opd(*arguments)
        assert (code, out) == (2, "")
        assert err.startswith("error: ") and err.endswith("\n") and err.count("\n") == 1, err
        assert sorted(here.rglob("*")) == before
        return err

    return run


@pytest.fixture
def prefix(tmp_path):
    """A training run with checkpoints of steps 0, 100 and 200."""
    for step in (0, 100, 200):
        save(tmp_path / "run" / f"checkpoint-{step}", weights(step))
    return tmp_path / "run"


@pytest.fixture
def unpublished(monkeypatch):
    """No page is drawn, which takes longer than to measure weights as small as these."""
    monkeypatch.setattr(reporting, "publish_import", lambda store, recipe: reporting.report_key(recipe))


@pytest.fixture
def measure(opd, folders, unpublished):
    """measure(*arguments, steps=(100, 200)): `opd measure` of the folders in this process, named mine."""

    def run(*arguments, steps=(100, 200)):
        given = [part for step in steps for part in ("--snapshot", f"{step}={folders[step]}")]
        return opd("measure", "--base", folders[0], *given, "--name", "mine", "--workers", 0, *arguments)

    return run
