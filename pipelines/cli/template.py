"""The text of a new study's file: short, commented, and in ruff's format at 120 columns."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipelines.cli.new import Chosen

STEPS, SNAPSHOTS = 40, (1, 2, 4, 8, 15, 20, 30, 40)
TITLES = {"sft": "SFT", "opd": "OPD", "rlvr": "RLVR"}
COMMENTS = {
    "prompt": "The prompt, of any fields of the file; {question} stands for a field.",
    "template": "Ask through the tokenizer's chat template.",
    "answer": "The field with the answer.",
    "held_out": "One in so many is held out for evaluation, by a hash of its prompt.",
    "verifier": "How a final answer is compared: math (1/2 is 0.5), or exact (the same text).",
}
NO_TEACHER = (
    "No teacher: the start model itself, with the answer in its prompt. A model that never learnt to use such a",
    'prompt can get worse. Better, with a model of the same vocabulary: Opd(teacher=Weights(ref="PATH")).',
)


def study_text(chosen: "Chosen") -> str:
    """The text of the file. Relative paths in it are relative to the file, which is in the working directory."""
    model, data = _quote(_near(chosen.model)), _quote(_near(chosen.options["path"]))
    names = ["AdamW", "Evaluation", "Horizon", "Recipe", "Rollout", "Task", "Weights"]
    names += [name for name, arm in (("Opd", "opd"), ("Rlvr", "rlvr"), ("Sft", "sft")) if arm in chosen.arms]
    options = [f'        "path": {data},']
    for name, value in chosen.options.items():
        if name != "path":
            options += [f"        # {COMMENTS[name]}", f'        "{name}": {_quote(value)},']
    titles = ", ".join(TITLES[arm] for arm in chosen.arms)
    lines = [
        f'"""{titles} from one model, on one file of examples: opd study run ./{chosen.name}.py"""',
        "",
        f"from opd_ops.recipe import {', '.join(sorted(names))}",
        f"from pipelines.studies.study import {'Measurement, ' if chosen.cuts else ''}Study",
        "",
        f"# {chosen.weights / 1e6:,.2f} million weights. Paths are relative to this file.",
        f"MODEL = Weights(ref={model})",
        f"# {chosen.examples} examples, of which {chosen.held_out} are held out.",
        "DATA = Task(",
        '    name="jsonl",',
        "    options={",
        *options,
        "    },",
        ")",
        "",
        "",
        "def arm(name, objective, prompts, samples=1):",
        "    return Recipe(",
        f"        study={_quote(chosen.name)},",
        "        arm=name,",
        "        start=MODEL,",
        "        task=DATA,",
        "        objective=objective,",
        f"        optimizer=AdamW(learning_rate={chosen.learning_rate}, warmup=2),",
        "        # Weights are kept and measured at these steps, 4 bytes a weight or less.",
        f"        horizon=Horizon(steps={STEPS}, snapshots={SNAPSHOTS}),",
        f"        # Responses in the data have up to {chosen.longest} tokens.",
        f"        rollout=Rollout(prompts=prompts, samples=samples, max_new_tokens={chosen.max_new_tokens}),",
        f"        evaluation=Evaluation(problems={min(chosen.held_out, 64)}, samples=4),",
        "    )",
        "",
        "",
        "def study():",
        "    arms = [",
        *(f"        {line}" for name in chosen.arms for line in _arm(chosen, name)),
        "    ]",
        "    return Study(",
        f"        name={_quote(chosen.name)},",
        f"        title={_quote(_title(chosen))},",
        "        models=(),",
        '        suites={"core": tuple(arms)},',
        f"        seeds={chosen.seeds if len(chosen.seeds) > 1 else '(0,)'},",
        "        anchor=None,",
        *_measurement(chosen),
        "    )",
        "",
    ]
    return "\n".join(lines)


def _arm(chosen: "Chosen", name: str) -> list[str]:
    """The lines of an arm in the tuple of arms."""
    prompts = min(16, chosen.training)
    if name == "sft":
        return [f'arm("sft", Sft(stream="clean"), prompts={prompts}),']
    if name == "rlvr":
        return [
            "# GRPO, which learns where some of a prompt's four responses are right and others wrong.",
            f'arm("rlvr", Rlvr(), prompts={min(4, prompts)}, samples=4),',
        ]
    if chosen.teacher is None:
        return [*(f"# {line}" for line in NO_TEACHER), f'arm("opd", Opd(teacher=None), prompts={prompts}),']
    return [
        "arm(",
        '    "opd",',
        f"    Opd(teacher=Weights(ref={_quote(_near(chosen.teacher))})),",
        f"    prompts={prompts},",
        "),",
    ]


def _measurement(chosen: "Chosen") -> list[str]:
    if not chosen.cuts:
        return []
    fields = ", ".join(f"{name}={values}" for name, values in chosen.cuts.items())
    return [
        "        # Leading directions that are compared; the smallest matrix has room for few.",
        f"        measurement=Measurement({fields}),",
    ]


def _title(chosen: "Chosen") -> str:
    return f"{Path(chosen.model).resolve().name} on {Path(chosen.options['path']).name}"


def _near(path: str) -> str:
    """A path as the file writes it: relative if it is below the working directory."""
    whole = os.path.abspath(os.path.expanduser(path))
    relative = os.path.relpath(whole)
    return whole if relative.startswith("..") else relative


def _quote(value: Any) -> str:
    """A Python literal in double quotes, as ruff formats it."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)
