"""The qwen3-8b study: the three runs of arXiv 2606.07082, as far as the paper and its public sources say.

Qwen3-8B-Base -> sft (the anchor) -> opd (teacher Qwen3-32B), rlvr. Marks: F stated by the paper, I inferred by us: by
default from the training scripts of slime, the framework that its checkpoint names, flags and save rule point to. The
arms are not matched: start, data, learning rate, batch and steps differ between sft and the others, as in the paper.

The user supplies the weights (named as on the hub), GPUs, and three files of problems under `data/qwen3-8b`, one JSON
object a line: `sft.jsonl` demonstrations (F: Dolci-Think), `train.jsonl` prompts with answers (F: dapo-math-17k) and
`held-out.jsonl` (F: AIME 2024). `opd study show qwen3-8b` says what the runs need: a trainer that is larger than one
GPU of 80 or 141 GB, and is split over two workers. Where there are fewer GPUs `opd study run` refuses the study.
"""

from typing import Any

from opd_ops.recipe import (
    AdamW,
    Evaluation,
    FinalOf,
    Horizon,
    Objective,
    Opd,
    Precision,
    Recipe,
    Resources,
    Rlvr,
    Rollout,
    Sft,
    Start,
    Task,
    Weights,
    Workers,
)
from pipelines.studies.study import Measurement, Study

BASE, TEACHER = "Qwen/Qwen3-8B-Base", "Qwen/Qwen3-32B"
DATA = "data/qwen3-8b"  # under the working directory
# As in the models' config.json, so that a plan needs no weights.
QWEN3_8B: dict[str, Any] = {
    "model_type": "qwen3",
    "vocab_size": 151936,
    "hidden_size": 4096,
    "num_hidden_layers": 36,
    "intermediate_size": 12288,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 32768,
    "tie_word_embeddings": False,
}
QWEN3_32B = QWEN3_8B | {
    "hidden_size": 5120,
    "num_hidden_layers": 64,
    "intermediate_size": 25600,
    "num_attention_heads": 64,
    "max_position_embeddings": 40960,
}
WORKERS = 2  # of a GPU of 140 GiB each: masters, moments and gradients of 8B weights are 153 GiB
ROLLOUT, NONE = Workers(actors=2, gpus=1), Workers()


def sft() -> Recipe:
    """From the base to the anchor, in 5 epochs (F), 5,376 steps (F: its last checkpoint is iter_0005375).

    F: batch 256, learning rate 1e-5 by cosine to 1e-6, warm-up 10 %, betas (0.9, 0.95), weight decay 0.1, a checkpoint
    every 256 steps. I: some 275,000 demonstrations (256 x 5376 / 5), loss meaned per token, eps 1e-8, clip 1, and
    16,384 tokens as the longest response, which the paper does not state.
    """
    steps = 5376
    return _arm(
        "sft",
        start=Weights(ref=BASE),
        file="sft.jsonl",
        objective=Sft(stream="clean"),
        optimizer=AdamW(
            learning_rate=1e-5, betas=(0.9, 0.95), weight_decay=0.1, warmup=round(0.1 * steps), schedule="cosine"
        ),
        horizon=Horizon(steps=steps, snapshots=_every(256, steps), resume_every=256),
        rollout=Rollout(prompts=256, max_new_tokens=16_384, engine="vllm", batch=32),
        resources=_resources(rollout=Workers(actors=1, gpus=1)),  # for evaluation
    )


def opd() -> Recipe:
    """From the anchor, 300 steps (F: 299, and checkpoints 63, 127, 191, 255, 299 counted from 0).

    F: teacher Qwen3-32B, 8 samples a prompt at temperature 1, batch 64, learning rate 1e-6 constant, betas (0.9, 0.98),
    weight decay 0.1, the sampled token's policy gradient with coefficient 1, no reward. I: 8 prompts a step (the
    table's "300 prompts per step" is the number of rollouts, and 8 x 8 is the batch), 16,384 new tokens, the mean over
    a sequence's tokens then over sequences, no whitening, eps 1e-8, clip 1, no warm-up. The script's importance-ratio
    clip 0.2 never acts at one update per rollout, and is left out.
    """
    steps = 300
    return _arm(
        "opd",
        start=FinalOf(recipe="qwen3-8b.sft"),
        file="train.jsonl",
        objective=Opd(teacher=Weights(ref=TEACHER), estimator="policy-gradient", normaliser="sequence"),
        optimizer=AdamW(learning_rate=1e-6, betas=(0.9, 0.98), weight_decay=0.1, warmup=0),
        horizon=Horizon(steps=steps, snapshots=_every(64, steps)),
        rollout=Rollout(prompts=8, samples=8, max_new_tokens=16_384, engine="vllm", batch=32),
        resources=_resources(rollout=ROLLOUT, teacher=Workers(actors=1, gpus=1)),
    )


def rlvr() -> Recipe:
    """From the anchor, 1,024 steps (F: 1,023 counted from 0).

    F: GRPO, 8 samples a prompt at temperature 1, batch 512, binary reward, importance-ratio clip 0.2 below and 0.28
    above, groups without reward variance dropped, no KL term, learning rate 1e-6 constant, betas (0.9, 0.98), eps
    1e-15, weight decay 0.1. I: 64 prompts a step (the table's "1024 prompts per step" is the number of rollouts), 8,192
    new tokens, advantages divided by the group's standard deviation, a snapshot every 64 steps, clip 1, no warm-up.
    slime draws more prompts in place of dropped groups; here the batch is smaller then.
    """
    steps = 1024
    return _arm(
        "rlvr",
        start=FinalOf(recipe="qwen3-8b.sft"),
        file="train.jsonl",
        objective=Rlvr(clip=(0.2, 0.28), drop_flat=True),
        optimizer=AdamW(learning_rate=1e-6, betas=(0.9, 0.98), eps=1e-15, weight_decay=0.1, warmup=0),
        horizon=Horizon(steps=steps, snapshots=_every(64, steps)),
        rollout=Rollout(prompts=64, samples=8, max_new_tokens=8_192, engine="vllm", batch=64),
        resources=_resources(rollout=ROLLOUT),
    )


def _arm(
    arm: str,
    *,
    start: Start,
    file: str,
    objective: Objective,
    optimizer: AdamW,
    horizon: Horizon,
    rollout: Rollout,
    resources: Resources,
) -> Recipe:
    """Shared: AIME 2024 avg@8 (F); bf16 products, fp32 accumulated gradients (F), fp32 masters (I); one row a forward.

    Qwen3's chat template, and the end of its turn as EOS (F for the loss mask of SFT, I for the rest).
    """
    return Recipe(
        study="qwen3-8b",
        arm=arm,
        start=start,
        task=Task(
            name="jsonl",
            options={
                "path": f"{DATA}/{file}",
                "held_out": f"{DATA}/held-out.jsonl",
                "template": True,
                "eos": "<|im_end|>",
            },
        ),
        objective=objective,
        optimizer=optimizer,
        horizon=horizon,
        rollout=rollout,
        evaluation=Evaluation(problems=30, samples=8, temperatures=(1.0,), batch=rollout.batch),
        precision=Precision(compute="bf16", micro_batch=1),
        resources=resources,
    )


def _resources(rollout: Workers, teacher: Workers = NONE) -> Resources:
    return Resources(gpus=1, workers=WORKERS, threads=8, rollout=rollout, teacher=teacher, checkpoint_activations=True)


def _every(interval: int, steps: int) -> tuple[int, ...]:
    """Steps that end with a checkpoint: every `interval`, and the last."""
    return tuple(sorted({*range(interval, steps + 1, interval), steps}))


def study() -> Study:
    return Study(
        name="qwen3-8b",
        title="The paper's runs: Qwen3-8B, SFT from its base, then OPD from Qwen3-32B and RLVR",
        models=(),
        suites={"core": (sft(), opd(), rlvr())},
        seeds=(0,),
        anchor="sft",
        measurement=Measurement(k=(16, 64, 512)),
        configs={BASE: QWEN3_8B, TEACHER: QWEN3_32B},
        story="pipelines.paper.story:STORY",
    )
