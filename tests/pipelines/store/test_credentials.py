"""Keys come from the environment or the AWS files, and go nowhere: not into objects, output, logs or errors."""

import json
import logging
import os
from urllib.parse import quote

import pytest
import torch

from pipelines import lake
from pipelines.cli import main
from pipelines.runs.provenance import provenance
from pipelines.store.checkpoints import open_checkpoint
from pipelines.store.objects import Store, normalise
from pipelines.store.trajectory import Trajectory
from tests.pipelines.seaweed import KEY, SECRET

FORMS = {form for word in (KEY, SECRET) for form in (word, quote(word), quote(word, safe=""), json.dumps(word)[1:-1])}
REMEDY = (
    "give s3://BUCKET/PREFIX, and the keys in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or in the AWS credentials"
)


@pytest.fixture(params=["environment", "files"])
def keyed(request, s3, monkeypatch, tmp_path):
    """A store that is opened by variables, or by files alone."""
    if request.param == "files":
        (tmp_path / "credentials").write_text(f"[lab]\naws_access_key_id = {KEY}\naws_secret_access_key = {SECRET}\n")
        (tmp_path / "config").write_text(
            f"[profile lab]\nregion = us-east-1\nendpoint_url = {os.environ['AWS_ENDPOINT_URL']}\n"
        )
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            monkeypatch.delenv(name)
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
        monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
        monkeypatch.setenv("AWS_PROFILE", "lab")
    monkeypatch.setenv("OPD_STORE", s3.uri)
    return s3


def secrets(text):
    return sorted(form for form in FORMS if form in text)


def test_keys_open_the_store_and_are_written_nowhere(keyed, capfd, caplog, monkeypatch):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr("sys.argv", ["opd", "study", "run", "tiny"])
    run = Trajectory(keyed, "tiny.opd", 0)
    run.register({"identity": {}, "fingerprint": "f", "inputs": {}, "provenance": provenance()})
    run.commit(0, {"a.weight": torch.ones(3, 2)}, None)
    run.save_resume(0, {"a.weight": torch.ones(3, 2)}, {})
    rows = [{"study": "tiny", "recipe": "tiny.opd", "seed": 0, "step": 0, "loss": 1.0, "tokens": 1}]
    lake.write(keyed, "training", rows, recipe="tiny.opd", seed=0)
    assert lake.scan("training").collect()["loss"].to_list() == [1.0], "Polars has the keys too"
    assert main(["tables"]) == 0
    errors = []
    for attempt in (lambda: keyed.read("none"), lambda: keyed.create(f"{run.prefix}/run.json", b"")):
        with pytest.raises(OSError) as caught:
            attempt()
        errors.append(f"{caught.value!r} {caught.value.__cause__!r}")
    with pytest.raises(ValueError, match="no-such-bucket") as refused:
        Store("s3://no-such-bucket/x").require_writable()
    errors.append(repr(refused.value))
    keys = keyed.find("")
    assert {"run.json", "manifest.json", "facts.json", "part-0.parquet"} <= {key.rpartition("/")[2] for key in keys}
    for key in keys:
        bucket, _, name = keyed.path(key).partition("/")
        facts = keyed._filesystem[0].call_s3("head_object", Bucket=bucket, Key=name)
        assert secrets(key) == secrets(keyed.read(key).decode("latin-1")) == secrets(repr(facts)) == [], key
    said = capfd.readouterr()
    assert "training" in said.out and secrets(said.out) == secrets(said.err) == []
    assert secrets(" ".join(errors)) == secrets(caplog.text) == secrets(repr(keyed)) == []


@pytest.mark.parametrize("variable", ["AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID"])
def test_keys_that_are_refused_are_not_told(variable, s3, monkeypatch, capfd):
    monkeypatch.setenv(variable, "another-word-8d1f")
    monkeypatch.setenv("OPD_STORE", s3.uri)
    with pytest.raises(PermissionError) as caught:
        Store(s3.uri).read("a")
    assert str(caught.value).startswith(f"{s3.uri}/a: ")
    assert main(["tables"]) == 2
    told = capfd.readouterr()
    assert f"check OPD_STORE ({s3.uri}), its address and credentials" in told.err
    monkeypatch.setenv("OPD_STORE", "memory://elsewhere")
    assert main(["measure", "--trajectory", f"{s3.uri}/run"]) == 2
    again = capfd.readouterr()
    assert again.err.startswith(f"error: {s3.uri}/run: ") and "OPD_STORE" not in again.err
    for text in (str(caught.value), *told, *again):
        assert secrets(text) == [] and "another-word-8d1f" not in text


ADDRESSES = (
    "s3://{key}:{secret}@bucket/x",
    "s3://{key}::{secret}@bucket/x",
    "s3://{key}@bucket",
    "s3a://{key}:{secret}@bucket",
    "s3://{key}:{secret}",
)


@pytest.mark.parametrize("address", ADDRESSES)
def test_an_address_with_keys_is_refused_and_not_repeated(address, monkeypatch, capfd):
    uri = address.format(key=KEY, secret=SECRET)
    monkeypatch.setenv("OPD_STORE", uri)
    said = []
    for attempt in (lambda: Store(uri), lambda: normalise(uri), lambda: open_checkpoint("base", uri)):
        with pytest.raises(ValueError, match=REMEDY) as caught:
            attempt()
        said.append(str(caught.value))
    assert main(["tables"]) == 2
    out, err = capfd.readouterr()
    assert REMEDY in err and err.count("\n") == 1 and out == ""
    assert all("\n" not in line for line in said) and secrets(" ".join([*said, err])) == []


@pytest.mark.parametrize("uri", ["s3://a::b/c", "s3a://a::b", "s3://::b", f"s3://{KEY}::{SECRET}/x"])
def test_a_bucket_with_two_colons_is_refused_as_what_it_is(uri):
    for attempt in (Store, normalise):
        with pytest.raises(ValueError) as caught:
            attempt(uri)
        assert str(caught.value) == (
            "an s3:// address has :: in its bucket, which no bucket has in its name; give s3://BUCKET/PREFIX"
        )


@pytest.mark.parametrize(
    "uri",
    [
        "s3://bucket",
        "s3://bucket/a::b",
        "s3://arn:aws:s3:::bucket/x",
        "s3://bucket/a@b:c/d",
        "file:///a@b:c",
        "memory://x@y",
    ],
)
def test_other_addresses_are_taken(uri):
    assert normalise(uri) == Store(uri).uri == uri
