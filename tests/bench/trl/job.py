"""What TRL is asked for. As JSON it is what `worker.py` reads, so names here are names there.

Models are Hugging Face folders (config.json, model.safetensors) with one vocabulary. Rows are prompt-major: the
`group` responses of prompt 0, then those of prompt 1; responses end with EOS unless they are truncated.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Tokens = list[int]


@dataclass(frozen=True, kw_only=True)
class Job:
    """Optimizer steps of one method from the student's weights, each on all prompts.

    method: `opd` (DistillationTrainer, beta=1, group 1) or `grpo` (GRPOTrainer, beta=0). A reward is 1 where the number
    of the response's tokens, EOS included, is even. responses: one step on these, in place of drawn ones; for grpo with
    these rewards, or advantages in place of TRL's own. warmup: at least 1, as the first step counts from the start of
    the process.
    """

    method: Literal["opd", "grpo"]
    student: Path
    teacher: Path | None = None  # opd only
    prompts: list[Tokens]
    group: int = 1  # responses per prompt; at least 2 for grpo
    max_new_tokens: int = 24
    temperature: float = 1.0  # of sampling and of the loss
    pad: int = 0
    bos: int = 1
    eos: int = 2
    learning_rate: float = 3e-5
    max_grad_norm: float = 1.0
    seed: int = 0
    warmup: int = 3
    steps: int = 10
    responses: list[Tokens] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    advantages: list[float] = field(default_factory=list)
