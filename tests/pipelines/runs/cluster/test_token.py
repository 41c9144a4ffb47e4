"""A Ray that is started here asks for a token, unless it is told otherwise."""

import os

import pytest

from pipelines.runs.cluster import token

NAMES = (token.MODE, token.TOKEN, token.FILE)


@pytest.fixture
def unset(monkeypatch):
    """No setting of Ray's token, and Ray's own state left alone."""
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(token, "_reload_ray_settings", lambda: None)


def test_a_new_token_is_drawn_each_time_and_taken_back(unset):
    drawn = []
    for _ in range(2):
        with token.require_token():
            assert os.environ[token.MODE] == "token"
            drawn.append(os.environ[token.TOKEN])
        assert not set(NAMES) & set(os.environ)
    assert drawn[0] != drawn[1] and {len(bytes.fromhex(text)) for text in drawn} == {32}


def test_within_a_block_another_one_keeps_its_token(unset):
    with token.require_token():
        outer = os.environ[token.TOKEN]
        with token.require_token():
            assert os.environ[token.TOKEN] == outer
        assert os.environ[token.TOKEN] == outer


def test_a_token_that_is_named_is_taken_and_disabled_means_none(tmp_path):
    file = tmp_path / "token"
    file.write_text("from-the-file\n")
    assert token.token_variables({token.TOKEN: "mine"}) == {token.MODE: "token"}
    assert token.token_variables({token.FILE: str(file)}) == {token.MODE: "token"}
    assert token.token_variables({token.MODE: "disabled"}) == {}
    assert token.read_token({token.MODE: "token", token.TOKEN: "mine", token.FILE: str(file)}) == "mine"
    assert token.read_token({token.MODE: "token", token.FILE: str(file)}) == "from-the-file"
    assert (
        token.read_token({token.TOKEN: "mine"}) == token.read_token({token.MODE: "disabled", token.TOKEN: "mine"}) == ""
    )


@pytest.mark.parametrize("mode", ["disable", "off", "tokens"])
def test_a_mode_that_ray_would_take_for_disabled_is_refused(mode):
    with pytest.raises(ValueError, match=f"^RAY_AUTH_MODE '{mode}' is unknown, .*; set it to token or disabled$"):
        token.token_variables({token.MODE: mode})


def test_a_file_without_a_token_is_refused(tmp_path):
    (tmp_path / "empty").write_text("\n")
    for name, reason in (("absent", "No such file or directory"), ("empty", "it is empty"), (".", "Is a directory")):
        file = tmp_path / name
        with pytest.raises(ValueError, match=rf"^Ray's token is to be read from {file}, .* \({reason}\); set RAY_AUTH"):
            token.token_variables({token.FILE: str(file)})
