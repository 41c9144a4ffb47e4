"""What is watched, as the store keeps it and `opd watch` shows it."""

import pytest

from pipelines import cli
from pipelines.runs.external import watchlist
from pipelines.store.objects import Store
from tests.pipelines.runs.conftest import model, save


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("OPD_STORE", f"file://{tmp_path}/store")
    return Store(f"file://{tmp_path}/store")


def test_what_is_added_is_read_and_ended(store, tmp_path):
    base = save(tmp_path / "base", model())
    made = watchlist.add_watch(store, "mine", str(tmp_path / "run"), ("tiny.opd", "tiny.sft"), base)
    assert watchlist.read(store, "mine") == made
    assert (made.prefix, made.base) == (f"file://{tmp_path}/run", f"file://{base}")
    watchlist.add_watch(store, "other", "s3://bucket/run", ("tiny.opd",))
    assert watchlist.list_watches(store) == ["mine", "other"]
    assert watchlist.read(store, "other").base is None
    watchlist.remove_watch(store, "mine")
    assert watchlist.list_watches(store) == ["other"]


@pytest.mark.parametrize(
    ("name", "prefix", "against", "base", "told"),
    [
        ("A/B", "./run", ("r",), None, r"^name 'A/B' does not fit"),
        ("mine", " ", ("r",), None, r"^no prefix to watch for mine"),
        ("mine", "./run", (), None, r"^nothing to hold mine against"),
        ("mine", "./run", ("r",), "./none", r"^base: .*none"),
    ],
)
def test_what_cannot_be_watched_is_refused_in_one_line(name, prefix, against, base, told, store):
    with pytest.raises(ValueError, match=told) as caught:
        watchlist.add_watch(store, name, prefix, against, base)
    assert "\n" not in str(caught.value) and watchlist.list_watches(store) == []


def test_a_file_that_says_something_else_is_named(store):
    store.write("watched/mine.json", b"[]")
    with pytest.raises(ValueError, match=r"^watched/mine.json does not say what is watched; watch mine again"):
        watchlist.read(store, "mine")
    with pytest.raises(ValueError, match=r"^nothing is watched as other; watch it with .*PREFIX --against RECIPE`$"):
        watchlist.remove_watch(store, "other")


def test_the_command_adds_lists_and_ends(store, tmp_path, capsys):
    def opd(*arguments):
        return cli.main(["watch", *arguments]), capsys.readouterr()

    assert opd()[1].out == f"nothing is watched in {store.uri}\n"
    code, said = opd("mine", "--trajectory", str(tmp_path), "--against", "tiny.opd")
    assert code == 0 and said.out.splitlines()[0] == f"mine: file://{tmp_path}, against tiny.opd"
    assert opd()[1].out == opd("mine")[1].out == said.out.splitlines(keepends=True)[0]
    assert opd("mine", "--end")[1].out == "mine is watched no more\n"
    for wrong, told in (
        (("--against", "r"), "--against goes with a NAME"),
        (("--end",), "--end goes with a NAME"),
        (("mine", "--against", "r"), "give --trajectory PREFIX"),
        (("mine", "--trajectory", "./run"), "nothing to hold mine against"),
        (("mine", "--end"), "nothing is watched as mine"),
    ):
        code, said = opd(*wrong)
        assert code == 2 and told in said.err and said.err.count("\n") == 1
