"""`opd study new`: write the file of a study for a given model and data file; the study runs without edits."""

import argparse
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.cli.options import Commands

if TYPE_CHECKING:
    from opd_ops.tasks.jsonl import Jsonl

ARMS = ("sft", "opd", "rlvr")
HELD_OUT, LEAST = 8, 16  # one in so many examples is held out; more if that would be fewer than LEAST
MOST = 64  # held-out problems of an evaluation
SAMPLE = 500  # examples whose tokens are counted
CHECKED = 8  # demonstrations whose reward is checked
RATES = ((5e6, "1e-3"), (1e8, "1e-4"), (float("inf"), "1e-5"))  # largest number of weights, learning rate


def register(commands: Commands) -> None:
    top = commands.add_parser(
        "new",
        help="write a study over a model and data of your own",
        description="Write ./NAME.py: a study that trains a model on a JSONL file of questions and answers, with sizes "
        "chosen from both. It runs as it is (`opd study run ./NAME.py`), and is meant to be edited.",
        epilog="Example: opd study new mine --model ./mymodel --data my.jsonl --arms sft,rlvr --seeds 3",
    )
    top.add_argument("name", metavar="NAME", help="of the study and of its file, ./NAME.py")
    top.add_argument("--model", required=True, metavar="PATH", help="a Hugging Face folder, with its tokenizer")
    top.add_argument(
        "--data", required=True, metavar="FILE", help="one JSON object a line, with a question and an answer"
    )
    top.add_argument("--teacher", metavar="PATH", help="of opd: a folder with the same vocabulary (default: none)")
    top.add_argument("--prompt", metavar="P", help="the field with the question, or a template of fields: '{question}'")
    top.add_argument("--answer", metavar="FIELD", help="the field with the answer")
    top.add_argument("--arms", default=",".join(ARMS), metavar="A,A", help=f"of {', '.join(ARMS)} (default: all)")
    top.add_argument("--seeds", type=int, default=3, metavar="N", help="seeds 0 to N - 1 (default: 3)")
    top.set_defaults(command=new_study)


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """The values of the file, chosen from the model and the data. longest: tokens of the longest response, EOS
    included.
    """

    name: str
    arms: tuple[str, ...]
    seeds: tuple[int, ...]
    model: str
    weights: int
    teacher: str | None
    options: dict[str, Any]
    examples: int
    held_out: int
    training: int
    longest: int
    max_new_tokens: int
    cuts: dict[str, tuple[int, ...]]

    @property
    def learning_rate(self) -> str:
        return next(rate for most, rate in RATES if self.weights <= most)


def new_study(args: argparse.Namespace) -> int:
    from pipelines.cli.template import study_text

    file = require_file(args.name)
    chosen = choose_sizes(args)
    with open(file, "x") as opened:
        opened.write(study_text(chosen))
    print(
        f"{file}: {', '.join(chosen.arms)} x {len(chosen.seeds)} seeds from {chosen.model} "
        f"({chosen.weights / 1e6:,.2f} million weights) on {chosen.options['path']}, {chosen.held_out} of "
        f"{chosen.examples} held out, responses of up to {chosen.max_new_tokens} tokens"
    )
    print(f"run it: opd study run {file}    look at it first: opd study show {file}")
    return 0


def require_file(name: str) -> str:
    """The path of the new study file. Errors: ValueError for an invalid or used name, or a file that exists."""
    from opd_ops.recipe.name import ALLOWED, NAME
    from pipelines.studies.catalog import list_studies

    if not NAME.fullmatch(name) or "." in name:
        raise ValueError(f"{name!r} cannot name a study: {ALLOWED}, without a dot")
    if name in list_studies():
        raise ValueError(f"there is a study {name!r} already: choose another name")
    if Path(f"{name}.py").exists():
        raise ValueError(f"./{name}.py exists and is not overwritten: choose another name, or move it away")
    return f"./{name}.py"


def choose_sizes(args: argparse.Namespace) -> Chosen:
    """Read the model and the data, and choose sizes. Errors: ValueError in one line for options that do not fit
    together.
    """
    from opd_ops.tasks.fit import require_fit

    arms = tuple(dict.fromkeys(part.strip() for part in args.arms.split(",")))
    if unknown := [arm for arm in arms if arm not in ARMS]:
        raise ValueError(f"--arms names {unknown[0]!r}; known: {', '.join(ARMS)}")
    if args.seeds < 1:
        raise ValueError(f"--seeds {args.seeds} is no number of seeds from 1 up")
    if args.teacher and "opd" not in arms:
        raise ValueError("--teacher is of the arm opd: add it to --arms, or leave --teacher out")
    config, weights = read_model(args.model)
    if args.teacher:
        require_teacher(args.model, args.teacher)
    options, task = read_data(args)
    prompts, responses = count_tokens(task)
    window = config.max_position_embeddings
    privileged = "opd" in arms and not args.teacher
    room = window - (prompts["privileged"] if privileged else prompts["prompt"])
    if room < responses:
        require_fit(task, _problems(task), window, responses, privileged=privileged)
    wanted = max(256, 2 * responses) if task.text.template else responses + max(2, responses // 2)
    held_out, examples = len(task.examples["held_out"]), sum(map(len, task.examples.values()))
    return Chosen(
        name=args.name,
        arms=arms,
        seeds=tuple(range(args.seeds)),
        model=args.model,
        weights=weights,
        teacher=args.teacher,
        options=options,
        examples=examples,
        held_out=held_out,
        training=examples - held_out,
        longest=responses,
        max_new_tokens=min(wanted, room),
        cuts=choose_cuts(config),
    )


def read_model(folder: str) -> tuple[Any, int]:
    """Read the configuration and the number of weights of a model folder; only headers of weights are read.

    Errors: ValueError for a folder without a readable configuration or weights.
    """
    from opd_ops.models import configuration_from
    from pipelines.store.objects import Store, normalise
    from pipelines.store.tensors import list_tensors

    path = Path(folder).expanduser()
    try:
        config = configuration_from(json.loads((path / "config.json").read_text()))
    except (OSError, ValueError, KeyError) as error:
        reason = f"{error.strerror}" if isinstance(error, OSError) else " ".join(str(error).split())[:200]
        raise ValueError(f"--model {folder} is no Hugging Face folder: config.json cannot be read: {reason}") from None
    files = sorted(path.glob("*.safetensors"))
    if not files:
        raise ValueError(f"--model {folder} holds no *.safetensors: save it with save_pretrained({folder!r})")
    store = Store(normalise(str(path.resolve())))
    return config, sum(math.prod(ref.shape) for file in files for ref in list_tensors(store, file.name).values())


def require_teacher(model: str, teacher: str) -> None:
    """Check the teacher. Errors: ValueError for a folder without a model, or a vocabulary that differs from the
    model's.
    """
    from opd_ops.tasks.text import load_tokenizer, vocabulary_digest

    read_model(teacher)
    if vocabulary_digest(load_tokenizer(model)) != vocabulary_digest(load_tokenizer(teacher)):
        raise ValueError(f"--teacher {teacher} has another vocabulary than {model}: distillation needs one")


def read_data(args: argparse.Namespace) -> "tuple[dict[str, Any], Jsonl]":
    """Build the options of the task `jsonl` for a file, and the task. Errors: ValueError, as the task raises them."""
    from opd_ops.tasks.examples import QUESTIONS
    from opd_ops.tasks.guard import Guarded
    from opd_ops.tasks.jsonl import Jsonl
    from opd_ops.tasks.text import MARK, load_tokenizer

    options: dict[str, Any] = {"path": args.data}
    if load_tokenizer(args.model).chat_template:
        options["template"] = True
    row = first_row(args.data)
    named = [name for name in QUESTIONS if isinstance(row.get(name), str)]
    if args.prompt:
        if "{" not in args.prompt and args.prompt not in row:
            raise ValueError(f"--prompt {args.prompt} is no field of {args.data}; it has: {', '.join(row)}")
        plain = "{" in args.prompt or "template" in options
        options["prompt"] = args.prompt if plain else f"{{{args.prompt}}}\n{MARK}"
    elif "template" not in options and named:
        options["prompt"] = f"{{{named[0]}}}\n{MARK}"
    if args.answer:
        if args.answer not in row:
            raise ValueError(f"--answer {args.answer} is no field of {args.data}; it has: {', '.join(row)}")
        options["answer"] = args.answer
    task = Jsonl(args.model, **options)
    examples = [example for split in task.examples.values() for example in split]
    options["held_out"] = HELD_OUT if len(examples) >= HELD_OUT * LEAST else max(2, len(examples) // LEAST)
    options["verifier"] = "math" if all(map(_is_number, (example.answer for example in examples))) else "exact"
    task = Jsonl(args.model, **options)
    guarded = Guarded(task)
    try:
        for problem, response in _demonstration_pairs(task):
            if guarded.verify(problem, response[:-1]) != 1.0:
                raise ValueError(
                    f"{args.data}: the response {task.text.decode(response[:-1])!r}, as the tokenizer of "
                    f"{args.model} writes it, does not give the answer {problem.answer!r}: it may lack words of it"
                )
    finally:
        guarded.close()
    return options, task


def first_row(path: str) -> dict[str, Any]:
    """The first object of a file, or an empty one if the file is empty. Errors: ValueError for a file that does not
    exist.
    """
    try:
        with open(path, encoding="utf-8-sig") as file:
            row = json.loads(next((line for line in file if line.strip()), "null"))
    except OSError as error:
        raise ValueError(f"--data {path} cannot be read: {error.strerror}") from None
    except ValueError:
        return {}  # the task explains the error
    return row if isinstance(row, dict) else {}


def count_tokens(task: "Jsonl") -> tuple[dict[str, int], int]:
    """Count tokens of the longest prompt, the longest privileged prompt, and the longest response including EOS."""
    problems = _problems(task)
    prompts = {
        "prompt": max(len(problem.prompt) for problem in problems),
        "privileged": max(len(problem.privileged or problem.prompt) for problem in problems),
    }
    return prompts, max(len(response) for _, response in task.demonstrations("clean", SAMPLE, _generator()))


def choose_cuts(config: Any) -> dict[str, tuple[int, ...]]:
    """Choose cuts k and hill_k that fit the smallest matrix; nothing if the defaults fit."""
    heads = config.num_attention_heads
    head = getattr(config, "head_dim", None) or config.hidden_size // heads
    kv_heads = getattr(config, "num_key_value_heads", None) or heads
    side = min(config.hidden_size, config.intermediate_size, heads * head, kv_heads * head)
    if side >= 128:
        return {}
    k = max(2, side // 8)
    return {"k": (k,), "hill_k": tuple(dict.fromkeys((k, max(2, side // 4))))}


def _demonstration_pairs(task: "Jsonl") -> list[tuple[Any, list[int]]]:
    """Pair some problems with their demonstrated responses."""
    problems = task.problems("train", min(CHECKED, len(task.examples["train"])), _generator())
    by_prompt = dict((tuple(p), r) for p, r in task.demonstrations("clean", 4 * SAMPLE, _generator()))
    return [(problem, by_prompt[tuple(problem.prompt)]) for problem in problems if tuple(problem.prompt) in by_prompt]


def _problems(task: "Jsonl") -> list[Any]:
    return task.problems("train", min(SAMPLE, len(task.examples["train"])), _generator())


def _generator() -> Any:
    import numpy as np

    return np.random.default_rng(0)


def _is_number(answer: str) -> bool:
    try:
        float(answer.replace(",", ""))
    except ValueError:
        return False
    return True
