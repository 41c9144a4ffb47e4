from typing import Any

import pytest

from opd_ops import recipe
from opd_ops.tasks import registry


def build(name, folder=None, **options):
    return registry.build(recipe.Task(name=name, options=options), folder)


def test_every_task_of_the_list_is_built(folder, tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_text("".join(f'{{"prompt": "{i}", "label": "1"}}\n' for i in range(40)))
    for name in registry.TASKS:
        task: Any = build(name, folder, **({"path": str(path)} if name == "jsonl" else {}))
        assert task.instant in (True, False) and task.name.startswith(name)
        assert len(task.facts()["vocabulary"]) == 64


def test_an_unknown_task_names_the_known_ones():
    with pytest.raises(ValueError, match="unknown task 'chess'; known: chains, jsonl, reasoning, sums"):
        build("chess")


@pytest.mark.parametrize(
    "name, options, reason",
    [
        ("chains", {"operatons": 3}, "task chains has no option operatons; it has operations, tag"),
        ("sums", {"folder": "x"}, "task sums has no option folder; it has digits"),
        ("jsonl", {}, "task jsonl needs the option path"),
        ("chains", {"operations": 0}, "at least one operation"),
        ("chains", {"tag": "m"}, "tag of one character"),
        ("sums", {"digits": 0}, "at least one digit"),
    ],
)
def test_wrong_options_end_in_one_line(folder, name, options, reason):
    with pytest.raises(ValueError, match=reason):
        registry.build(recipe.Task(name=name, options=options), folder)


@pytest.mark.parametrize("name, options", [("sums", {}), ("reasoning", {}), ("jsonl", {"path": "x"})])
def test_tasks_with_a_tokenizer_need_a_folder(name, options):
    with pytest.raises(ValueError, match=f"task {name} reads its tokenizer from a model folder.*starts from none"):
        build(name, None, **options)
