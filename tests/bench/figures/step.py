"""Figure 7: where a training step's CPU seconds go, and the sampler beside Hugging Face's `generate`.

sampler    64 prompts and 24 tokens on the tiny study's model; 16 prompts and 8 tokens on one of SmolLM2-135M's shape,
           with 36 tokens of examples that all share, as few-shot prompts do, and with nothing in common; random
           weights, no EOS, so that both sides draw the same number of tokens
outside    share of a step outside forward, backward and sampling; the teacher's forward and the losses are forward
products   what the matrix products of a step, or of the sampler, take by themselves, of the same seconds
snapshot   seconds for snapshots, rollouts and resume states over seconds of training, at the default cadence, 100 steps
"""

import tempfile
from dataclasses import replace
from pathlib import Path
from statistics import median

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, PretrainedConfig

from opd_ops.recipe import Evaluation, FinalOf, Fresh, Horizon, Opd, Recipe, Sft
from opd_ops.rollout.hf import HfEngine
from opd_ops.rollout.rollout import Request, Sampling
from pipelines.runs.clock import Clock
from pipelines.runs.trajectories.run import TrainingRun
from pipelines.runs.trajectories.training import train
from pipelines.store.objects import Store
from pipelines.studies import tiny
from tests.bench import products
from tests.bench.catalog import say
from tests.bench.figures.steps import CONFIG, trainer
from tests.bench.row import Row, row
from tests.bench.seconds import cpu
from tests.bench.sizes import Sizes

SMOLLM = LlamaConfig(
    vocab_size=49152,
    hidden_size=576,
    num_hidden_layers=30,
    intermediate_size=1536,
    num_attention_heads=9,
    num_key_value_heads=3,
    max_position_embeddings=2048,
    tie_word_embeddings=True,
)
INSIDE = ("sample", "teacher", "forward", "loss", "backward")
NEVER = -1  # an EOS that is never drawn


def measure_step(sizes: Sizes) -> list[Row]:
    say("sampler, tiny")
    rows = [_sampler("tiny", CONFIG, 64, 24, 0, sizes)]
    if sizes.install:
        say("sampler, SmolLM2-135M's shape")
        rows.append(_sampler("SmolLM2's shape, few-shot prompts", SMOLLM, 16, 8, 36, sizes))
        rows.append(_sampler("SmolLM2's shape, unrelated prompts", SMOLLM, 16, 8, 0, sizes))
    for recipe in (tiny.opd(), tiny.rlvr(), tiny.sft_matched()):
        say(f"a step of {recipe.arm}")
        rows.append(_outside(recipe, sizes))
    say("snapshots")
    return [*rows, _kept(sizes)]


def _sampler(case: str, config: PretrainedConfig, prompts: int, tokens: int, shared: int, sizes: Sizes) -> Row:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    model.generation_config.eos_token_id = None
    drawn = torch.randint(3, 32, (prompts + 1, shared + 9), generator=torch.Generator().manual_seed(1))
    ids = drawn[1:]
    ids[:, :shared] = drawn[0, :shared]
    engine = HfEngine(model, shared=True)
    engine.sync({}, 0)
    requests = [Request(prompt=row.tolist(), address=(0, 1, i, 0)) for i, row in enumerate(ids)]
    sampling = Sampling(max_new_tokens=tokens, temperature=1.0, eos=NEVER, pad=0, batch=prompts)
    options = {"do_sample": True, "top_k": 0, "max_new_tokens": tokens, "min_new_tokens": tokens, "pad_token_id": 0}

    def theirs() -> None:
        model.generate(ids, attention_mask=torch.ones_like(ids), **options)  # type: ignore[operator]

    def ours() -> None:
        engine.generate(requests, sampling, version=0)

    pairs = []
    for turn in range(4 * sizes.repeats + 1):
        pair = cpu(ours).seconds, cpu(theirs).seconds
        pairs += [pair] if turn else []  # the first of each allocates
    ratio = median(a / b for a, b in pairs)
    a, b = (median(side) for side in zip(*pairs, strict=True))
    floor = products.seconds(products.products(ours)) / b
    note = f"{a:.3f} s against {b:.3f} s; matrix products alone {floor:.2f}"
    return row(7, case, "sampler over generate", ratio, "x", most=0.5, note=note)


def _outside(recipe: Recipe, sizes: Sizes) -> Row:
    clock = Clock()
    run = trainer(recipe, phase=clock.phase)
    for _ in range(3):
        run.advance()
    clock.seconds.clear()
    turns = 8 * sizes.repeats
    for _ in range(turns):
        with clock.phase("train"):
            run.advance()
    spent = {phase: seconds[1] for phase, seconds in clock.seconds.items()}
    whole = sum(spent.values())
    outside = whole - sum(spent.get(phase, 0.0) for phase in INSIDE)
    parts = ", ".join(f"{phase} {100 * seconds / whole:.0f} %" for phase, seconds in spent.items())
    floor = products.seconds(products.products(run.advance)) * turns / whole
    parts += f"; matrix products alone {100 * floor:.0f} %"
    return row(7, recipe.arm, "share of a step outside", outside / whole, most=0.1, note=parts)


def _kept(sizes: Sizes) -> Row:
    """A whole run at the default cadence, written to local disk."""
    steps = 100 if sizes.install else 10
    start = Fresh(architecture=tiny.ARCHITECTURE)
    few = {"study": "bench", "evaluation": Evaluation(problems=8)}
    short = {"horizon": Horizon(steps=1, snapshots=()), "start": start, "objective": Sft(stream="clean")}
    teacher = replace(tiny.teacher(), **few, **short)
    distil = replace(
        tiny.opd(),
        **few,
        start=start,
        objective=Opd(teacher=FinalOf(recipe=teacher.name, seed=0)),
        horizon=Horizon(steps=steps),
    )
    with tempfile.TemporaryDirectory() as folder:
        store = Store(f"file://{Path(folder)}")
        train(store, teacher, 0, serial=True)
        run = TrainingRun(store, distil, 0, {})
        while not run.work(steps).finished:
            pass
    spent = {phase: seconds[1] for phase, seconds in run.clock.seconds.items()}
    trained = sum(seconds for phase, seconds in spent.items() if phase not in ("start", "evaluate", "snapshot"))
    note = f"{spent['snapshot']:.2f} s beside {trained:.1f} s of {steps} steps, {len(run.snapshots)} snapshots"
    return row(7, "opd", "snapshots over training", spent["snapshot"] / trained, most=0.1, note=note)
