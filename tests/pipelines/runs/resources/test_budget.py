"""The plan of a run against closed forms in its shapes."""

from dataclasses import replace

import pytest

from opd_ops.recipe import Mix, Opd, Replay, Resources, Rollout, Teacher, Workers
from pipelines.runs.resources.budget import PROMPT, RATE, SHARE, STREAM, budget
from pipelines.runs.resources.gpu_plan import GIB, GPUS, ROOM, Actor, Gpu, Part
from pipelines.runs.resources.sizes import count_sizes, known_sizes
from pipelines.studies import qwen3, tiny

SMALL = qwen3.QWEN3_8B | {
    "vocab_size": 640,
    "hidden_size": 96,
    "num_hidden_layers": 2,
    "intermediate_size": 256,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 32,
}
S, T = count_sizes(SMALL), count_sizes(SMALL | {"num_hidden_layers": 5, "hidden_size": 128})
LIMIT = 40
OPD = replace(
    qwen3.opd(),
    rollout=replace(qwen3.opd().rollout, max_new_tokens=LIMIT, batch=16),
    evaluation=replace(qwen3.opd().evaluation, batch=8),
    resources=replace(qwen3.opd().resources, workers=1),
)
P, V = S.parameters, 640


def parts(plan, actor):
    return {part.name: part.bytes for one in plan.actors if one.name == actor for part in one.parts}


def small(recipe=OPD, **resources):
    return budget(replace(recipe, resources=replace(recipe.resources, **resources)), S, T)


def test_the_trainer_holds_masters_moments_gradients_and_a_micro_batch():
    assert parts(small(), "trainer") == {
        "served weights": 2 * P,
        "masters, fp32": 4 * P,
        "moments, fp32": 8 * P,
        "accumulated gradients, fp32": 4 * P,
        "micro-batch gradients": 2 * P,
        "activations, recomputed": S.activations(PROMPT + LIMIT, 2, checkpointed=True),
        "logits, and in fp32": 6 * LIMIT * V,
        "log-softmax, fp32": 4 * LIMIT * V,
        "gradient of the log-softmax, fp32": 4 * LIMIT * V,
        "AdamW's temporaries": 4 * P,
    }


def test_workers_divide_what_is_of_the_weights_and_gather_a_block_at_a_time():
    one, three = parts(small(), "trainer"), parts(small(workers=3), "trainer")
    gathered = three.pop("weights and gradients that are whole")
    divided = {name for name in one if one[name] != three[name]}
    assert divided == {
        "served weights",
        "masters, fp32",
        "moments, fp32",
        "accumulated gradients, fp32",
        "micro-batch gradients",
        "AdamW's temporaries",
    }
    assert all(three[name] == -(-one[name] // 3) for name in divided) and one.keys() == three.keys()
    blocks = sum(a * b for a, b in map(S.shape, ("q", "k", "v", "o", "gate", "up", "down")))
    assert gathered == 2 * (2 * (P - 2 * blocks) + 3 * blocks)
    plan = small(workers=3)
    assert [(actor.name, actor.workers.actors) for actor in plan.actors[:2]] == [("trainer", 1), ("worker", 2)]
    assert plan.declared == small().declared + 2
    for phase in ("train", "update"):
        assert plan.seconds[phase] == pytest.approx(small().seconds[phase] / 3)


def test_the_first_of_several_workers_draws_with_weights_of_its_own():
    alone = dict(rollout=Workers(), teacher=Workers())
    assert "weights of the sampler" not in parts(small(**alone), "trainer")
    assert parts(small(workers=2, **alone), "trainer")["weights of the sampler"] == 2 * P
    assert "weights of the sampler" not in parts(small(workers=2, **alone), "worker")


def test_the_optimizer_holds_what_adamw_holds():
    import torch

    weight = torch.nn.Parameter(torch.zeros(30, 50))
    weight.grad = torch.ones_like(weight)
    optimizer = torch.optim.AdamW([weight])
    optimizer.step()
    moments = sum(t.nbytes for name, t in optimizer.state[weight].items() if name != "step")
    assert (moments, weight.nbytes, weight.grad.nbytes) == (8 * 1500, 4 * 1500, 4 * 1500)


def test_a_peak_is_what_is_always_there_and_the_largest_phase():
    actor = Actor(
        name="a",
        workers=Workers(actors=1, gpus=1),
        parts=(
            Part(name="weights", bytes=10),
            Part(name="activations", bytes=3, phase="backward"),
            Part(name="logits", bytes=4, phase="backward"),
            Part(name="temporaries", bytes=5, phase="update"),
        ),
    )
    assert actor.peak == 17
    of = lambda memory: actor.gpus(Gpu(name="g", memory=memory / ROOM, flops=1.0, bandwidth=1.0))
    assert [of(memory) for memory in (18, 16.9, 8.6, 8.4)] == [1, 2, 2, 3]


def test_more_rows_a_forward_take_more_and_recomputation_takes_less():
    wide = small(replace(OPD, precision=replace(OPD.precision, micro_batch=3)))
    for name in ("activations, recomputed", "logits, and in fp32"):
        assert parts(wide, "trainer")[name] == 3 * parts(small(), "trainer")[name]
    kept = small(checkpoint_activations=False)
    assert parts(kept, "trainer")["activations"] == kept.activations[1] > kept.activations[0]
    assert kept.activations == small().activations
    # A backward pass is two forwards; recomputing is a third.
    assert small().seconds["train"] == pytest.approx(4 / 3 * kept.seconds["train"])


def test_fp32_weights_take_twice_the_bytes_of_bf16():
    wide = parts(small(replace(OPD, precision=replace(OPD.precision, compute="fp32"))), "trainer")
    for name in ("served weights", "micro-batch gradients"):
        assert wide[name] == 2 * parts(small(), "trainer")[name]
    assert wide["masters, fp32"] == 4 * P


def test_the_cache_is_of_the_largest_sampling_call():
    rollout = lambda **changed: parts(small(replace(OPD, **changed)), "rollout")
    cached = lambda rows: {
        "weights of the sampler": 2 * P,
        f"keys and values, {rows} rows": rows * (PROMPT + LIMIT) * S.cache(2),
    }
    assert rollout() == cached(16)
    assert rollout(rollout=replace(OPD.rollout, batch=100)) == cached(64)  # a step has no more
    assert rollout(evaluation=replace(OPD.evaluation, batch=100)) == cached(100)


def test_the_teacher_holds_its_weights_one_block_and_logits():
    assert parts(small(), "teacher") == {
        "weights of the teacher": 2 * T.parameters,
        "one block's activations": (PROMPT + LIMIT) * T.block(2),
        "teacher's logits, fp32, log-softmax": 10 * LIMIT * V,
    }


def test_without_actors_everything_is_in_the_trainers_process():
    plan = small(rollout=Workers(), teacher=Workers())
    (trainer,) = plan.actors
    held = parts(plan, "trainer")
    assert "weights of the sampler" not in held  # they are the served ones
    assert held["weights of the teacher"] == 2 * T.parameters
    assert held["keys and values, 16 rows"] == 16 * (PROMPT + LIMIT) * S.cache(2)
    assert trainer.peak > small().actors[0].peak


def test_the_exact_divergence_needs_the_teachers_vocabulary():
    exact = replace(OPD, objective=Opd(teacher=OPD.objective.teacher))
    assert parts(small(exact), "trainer")["teacher's log-softmax, fp32"] == 4 * LIMIT * V
    assert parts(small(exact, teacher=Workers()), "trainer")["weights of the teacher"] == 2 * T.parameters


def test_a_mix_accumulates_the_gradient_of_each_term():
    mixed = small(replace(OPD, objective=Mix(alpha=0.5, opd=OPD.objective)))
    assert parts(mixed, "trainer")["accumulated gradients, fp32"] == 8 * P
    assert parts(mixed, "teacher") == parts(small(), "teacher")


def test_a_student_that_teaches_itself_needs_no_other_configuration():
    alone = replace(OPD, objective=Opd(teacher=None))
    assert budget(alone, S).teacher == S
    with pytest.raises(ValueError, match=r"qwen3-8b\.opd names a teacher, and a plan needs its configuration"):
        budget(OPD, S)


def test_seconds_are_operations_over_rates_and_bytes_over_bandwidth():
    plan, gpu, rows, mean = small(), GPUS["h200"], 64, SHARE * LIMIT
    rate, stream = RATE * gpu.flops, STREAM * gpu.bandwidth
    tokens = PROMPT + mean
    forward = lambda m: rows * (2 * m.products * tokens + 2 * tokens**2 * m.heads * m.head_dim * m.layers)
    assert plan.seconds["train"] == pytest.approx(4 * forward(S) / rate)
    assert plan.seconds["teacher"] == pytest.approx(forward(T) / rate)
    assert plan.seconds["update"] == pytest.approx((30 + 10 * 64) * P / stream)  # 64 micro-batches
    read = LIMIT * 2 * P + 16 * mean * (PROMPT + mean / 2) * S.cache(2)
    calls = 64 / 16 / 2  # two actors
    assert plan.seconds["rollout"] == pytest.approx(calls * read / stream)
    assert plan.step == pytest.approx(sum(plan.seconds.values()))
    assert plan.total == pytest.approx(plan.step * 300)


def test_a_call_of_many_rows_is_bound_by_operations():
    many = replace(OPD, rollout=replace(OPD.rollout, prompts=4000, batch=32_000))
    rate, mean = RATE * GPUS["h200"].flops, SHARE * LIMIT
    computed = 32_000 * S.forward(1, PROMPT + mean) / rate
    streamed = LIMIT * 2 * P + 32_000 * mean * (PROMPT + mean / 2) * S.cache(2)
    assert small(many).seconds["rollout"] == pytest.approx(max(computed, streamed / (STREAM * GPUS["h200"].bandwidth)))


def test_who_samples_decides_what_sampling_costs():
    drawn = replace(OPD, objective=Opd(teacher=OPD.objective.teacher))
    by_teacher = small(replace(drawn, rollout=replace(OPD.rollout, source=Teacher())))
    assert parts(by_teacher, "rollout")["weights of the sampler"] == 2 * T.parameters
    assert by_teacher.seconds["rollout"] > small(drawn).seconds["rollout"]
    stored = replace(drawn, rollout=replace(OPD.rollout, source=Replay(recipe="qwen3-8b.opd")))
    assert "rollout" not in small(stored).seconds
    sft = budget(qwen3.sft(), S)
    assert set(sft.seconds) == {"train", "update"}


def test_what_is_kept_is_one_master_a_snapshot_and_the_start():
    plan = small()
    assert plan.snapshots == 4 * P * 6  # the start and five
    assert plan.resume == 12 * P


@pytest.mark.parametrize("recipe", qwen3.study().arms(), ids=lambda recipe: recipe.arm)
def test_the_papers_runs_declare_the_gpus_that_they_need(recipe):
    study = qwen3.study()
    given = known_sizes(study, recipe.start), known_sizes(study, recipe.objective.teacher)
    plan = budget(recipe, *given)
    assert plan.needed == plan.declared
    assert all(actor.gpus(plan.gpu) == 1 for actor in plan.actors)
    alone = budget(replace(recipe, resources=replace(recipe.resources, workers=1)), *given).actors[0]
    # Weights in bf16, and four fp32 numbers a weight: 18 bytes a weight are more than one of these GPUs has.
    assert alone.peak > 18 * plan.student.parameters > ROOM * GPUS["h200"].memory > 64 * GIB


def test_a_small_study_fits_in_no_gpu_memory_to_speak_of():
    recipe = tiny.opd()
    config = known_sizes(tiny.study(), recipe.start)
    plan = budget(recipe, config, config)
    assert plan.declared == 0 and plan.needed == 1 and plan.actors[0].peak < GIB
    assert isinstance(recipe.rollout, Rollout) and recipe.resources == Resources()
