"""The worker: `python -I worker.py FOLDER`, inside TRL's environment and without this project's packages.

It reads FOLDER/job.json, whose keys are the fields of `job.Job`, and writes FOLDER/result.json. With responses given it
takes one step on them and also writes FOLDER/gradients.safetensors, by parameter name, before clipping. Otherwise it
takes warmup + steps optimizer steps and reports the CPU seconds of each after the warm-up, from the end of the step
before to its own end, so that data loading, callbacks and the rest of the trainer's loop are in them.

Parts of a step, each in CPU seconds of the process: `generate` is model.generate alone; `forward` is compute_loss,
with the teacher's forward in it, which `teacher` repeats; `backward`; `optimizer` is optimizer.step. What is left
(tokenizing, padding, rewards, clipping, zeroing, metrics, loop) is the step less these four.
"""
# These packages are not in the environment that is type-checked, where `trl` is taken for this folder.
# pyright: reportMissingImports=false, reportAttributeAccessIssue=false

import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from datasets import Dataset
from safetensors.torch import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, TrainerCallback
from trl import DistillationConfig, DistillationTrainer, GRPOConfig, GRPOTrainer, __version__

PARTS: tuple[str, ...] = ("generate", "forward", "backward", "optimizer", "teacher")


class Clock(TrainerCallback):
    """CPU seconds of every step and of its parts."""

    def __init__(self) -> None:
        self.ends: list[float] = []
        self.parts: dict[str, list[float]] = defaultdict(list)
        self.spent = dict.fromkeys(PARTS, 0.0)
        self.begun: dict[str, float] = {}

    def timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            self.start(part)
            found = function(*arguments, **named)
            self.stop(part)
            return found

        return call

    def start(self, part: str) -> None:
        self.begun[part] = time.process_time()

    def stop(self, part: str) -> None:
        self.spent[part] += time.process_time() - self.begun[part]

    def on_pre_optimizer_step(self, *_: Any, **__: Any) -> None:
        self.start("optimizer")

    def on_optimizer_step(self, *_: Any, **__: Any) -> None:
        self.stop("optimizer")

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.ends.append(time.process_time())
        for part, seconds in self.spent.items():
            self.parts[part].append(seconds)
            self.spent[part] = 0.0

    def watch(self, trainer: Any) -> None:
        trainer.model.generate = self.timed("generate", trainer.model.generate)
        trainer.compute_loss = self.timed("forward", trainer.compute_loss)
        trainer.accelerator.backward = self.timed("backward", trainer.accelerator.backward)
        trainer.add_callback(self)
        if getattr(trainer, "teacher_model", None) is not None:
            body = trainer.teacher_model.base_model
            body.register_forward_pre_hook(lambda *_: self.start("teacher"))
            body.register_forward_hook(lambda *_: self.stop("teacher"))


def word(token: int) -> str:
    """Closed at both ends, since special tokens are also found within words: a plain 1 would be found in 11."""
    return f"<{token}>"


def tokenizer(job: dict) -> PreTrainedTokenizerFast:
    """One word for each token of the student's vocabulary, with spaces between, and the job's special tokens."""
    size = json.loads((Path(job["student"]) / "config.json").read_text())["vocab_size"]
    plain = Tokenizer(WordLevel({word(token): token for token in range(size)}, unk_token=word(job["pad"])))
    plain.pre_tokenizer = WhitespaceSplit()
    special = {f"{name}_token": word(job[name]) for name in ("pad", "bos", "eos")}
    return PreTrainedTokenizerFast(tokenizer_object=plain, padding_side="left", **special)


def model(folder: str) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa")


def trainer(job: dict, folder: Path) -> Any:
    """TRL's trainer of the job, at the settings under which it is fastest on one CPU thread."""
    steps = 1 if job["responses"] else job["warmup"] + job["steps"]
    settings = {
        "output_dir": str(folder / "trainer"),
        "max_steps": steps,
        "per_device_train_batch_size": len(job["prompts"]) * job["group"],
        "gradient_accumulation_steps": 1,
        "learning_rate": job["learning_rate"],
        "weight_decay": 0.0,
        "lr_scheduler_type": "constant",
        "max_grad_norm": job["max_grad_norm"],
        "max_completion_length": job["max_new_tokens"],
        "temperature": job["temperature"],
        "seed": job["seed"],
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "shuffle_dataset": False,
        "dataloader_num_workers": 0,
        "dataloader_pin_memory": False,
        "report_to": [],
        "logging_strategy": "no",
        "save_strategy": "no",
        "disable_tqdm": True,
    }
    # All steps are one epoch, since the trainer's work between epochs is no part of a step.
    rows: dict[str, list] = {"prompt": [" ".join(map(word, tokens)) for tokens in job["prompts"]] * steps}
    common = {
        "model": model(job["student"]),
        "train_dataset": Dataset.from_dict(rows),
        "processing_class": tokenizer(job),
    }
    if job["method"] == "opd":
        arguments = DistillationConfig(**settings, beta=1.0)
        return DistillationTrainer(**common, args=arguments, teacher_model=model(job["teacher"]))
    arguments = GRPOConfig(**settings, beta=0.0, num_generations=job["group"], loss_type="grpo", scale_rewards="group")
    return GRPOTrainer(**common, args=arguments, reward_funcs=reward(job))


def reward(job: dict) -> Callable[..., list[float]]:
    def given(**_: Any) -> list[float]:
        return job["rewards"] or [0.0] * len(job["responses"])

    def parity(completion_ids: list[list[int]], **_: Any) -> list[float]:
        return [float(len(tokens) % 2 == 0) for tokens in completion_ids]

    return given if job["responses"] else parity


def measure(job: dict, it: Any) -> dict[str, Any]:
    """Seconds, parts and lengths of the steps after the warm-up."""
    clock, lengths = Clock(), []
    clock.watch(it)
    score = it._generate_and_score_completions

    def scored(inputs: Any) -> Any:
        found = score(inputs)
        lengths.append((int(found["completion_mask"].sum()), found["completion_ids"].shape[1]))
        return found

    it._generate_and_score_completions = scored
    it.train()
    skip = job["warmup"]
    return {
        "seconds": [after - before for before, after in zip(clock.ends[skip - 1 :], clock.ends[skip:], strict=False)],
        "parts": {part: seconds[skip:] for part, seconds in clock.parts.items()},
        "tokens": [tokens for tokens, _ in lengths[skip:]],
        "longest": [longest for _, longest in lengths[skip:]],
    }


def evaluate(job: dict, it: Any, folder: Path) -> dict[str, Any]:
    """Loss and gradient of the trainer's own step on the given responses."""
    found: dict[str, Any] = {"advantages": None}
    drawn = job["responses"] if job["method"] == "opd" else (job["responses"], None)
    it._generate_single_turn = lambda *_: drawn
    score, backward = it._generate_and_score_completions, it.accelerator.backward

    def scored(inputs: Any) -> Any:
        batch = score(inputs)
        if job["advantages"]:
            batch["advantages"] = torch.tensor(job["advantages"])
        if job["method"] == "grpo":
            found["advantages"] = batch["advantages"].tolist()
        return batch

    def backed(loss: Any, **named: Any) -> None:
        backward(loss, **named)
        gradients = {name: weight.grad.clone() for name, weight in it.model.named_parameters()}
        save_file(gradients, folder / "gradients.safetensors")
        found["loss"] = loss.item()
        found["norm"] = sum(float(gradient.double().square().sum()) for gradient in gradients.values()) ** 0.5

    it._generate_and_score_completions, it.accelerator.backward = scored, backed
    it.train()
    return found


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    job = json.loads((folder / "job.json").read_text())
    it = trainer(job, folder)
    found = evaluate(job, it, folder) if job["responses"] else measure(job, it)
    found["versions"] = {"trl": __version__, "transformers": transformers.__version__, "torch": torch.__version__}
    (folder / "result.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
