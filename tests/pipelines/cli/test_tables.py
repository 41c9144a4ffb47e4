"""`opd tables`: rows and columns, and stores that cannot be reached."""

import polars as pl

from pipelines import lake
from pipelines.store.objects import default_uri


def test_tables_are_listed_with_their_rows_and_explained_by_column(opd, measure, here):
    (here / ".opd/store").mkdir(parents=True)
    code, empty, err = opd("tables")
    assert (code, err) == (0, "")
    listed = {line.split()[0]: line.split()[1:3] for line in empty.splitlines()[1:] if line.strip()}
    assert all(listed[name] == ["0", "0"] for name in lake.TABLES)
    measure()
    rows = lake.scan("rotation").collect().height
    (line,) = [line for line in opd("tables")[1].splitlines() if line.startswith("rotation")]
    assert line.split()[1:3] == [f"{rows:,}", "1"]
    code, told, err = opd("tables", "rotation")
    assert (code, err) == (0, "")
    for column in lake.TABLES["rotation"].columns:
        (at,) = [place for place, line in enumerate(told.splitlines()) if line.split()[0] == column.name]
        assert column.meaning in " ".join(" ".join(told.splitlines()[at:]).split())


def test_another_store_is_listed_by_its_address(opd, measure, tmp_path):
    measure("--out", tmp_path / "elsewhere")
    line = lambda out: next(line for line in out.splitlines() if line.startswith("hill"))
    assert line(opd("tables", "--out", tmp_path / "elsewhere")[1]).split()[1] != "0"
    code, out, err = opd("tables")
    assert (code, out) == (2, "")
    assert err == f"error: the store {default_uri()} does not exist; name one that does, or set OPD_STORE to it\n"


def test_a_store_without_credentials_is_one_line(opd, monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "absent"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("OPD_STORE", "s3://bucket/prefix-without-credentials")
    code, out, err = opd("tables")
    assert (code, out) == (2, "")
    assert err.count("\n") == 1 and "s3://bucket/prefix-without-credentials" in err and "check OPD_STORE" in err


def test_a_panic_of_polars_is_one_line(opd, measure, monkeypatch):
    """No Exception, it is raised by what Arrow finds nothing wrong with."""
    measure()

    def panic(*_, **__):
        raise pl.exceptions.PanicException("assertion failed\n  left: 50\n right: 3118")

    monkeypatch.setattr(pl.LazyFrame, "collect", panic)
    code, out, err = opd("tables")
    assert (code, out) == (2, "")
    assert err.count("\n") == 1 and ".parquet cannot be read (assertion failed); " in err


def test_the_dictionary_is_printed_whole(opd, refused):
    from pipelines.lake.dictionary import render_dictionary

    assert opd("tables", "--dictionary") == (0, render_dictionary(), "")
    assert "leave the others out" in refused("tables", "rotation", "--dictionary")
