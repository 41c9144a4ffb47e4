"""The plan of a run that `opd study show` prints: memory by actor, time by phase, bytes stored, and the assumptions."""

from pipelines.cli.layout import wrap_text
from pipelines.runs.resources.budget import PROMPT, RATE, SHARE, STREAM, budget
from pipelines.runs.resources.gpu_plan import GIB, ROOM, Gpu, Plan
from pipelines.runs.resources.sizes import known_sizes
from pipelines.statistics.numbers import align_columns
from pipelines.studies.study import Study

WHEN = {"always": "", "backward": "in a backward pass", "update": "in the update", "confining": "after the update"}


def plan_arms(study: Study, gpu: Gpu) -> list[Plan]:
    """Plan the arms of a study whose model configurations are known."""
    plans = []
    for recipe in study.every_arm():
        student, named = known_sizes(study, recipe.start), recipe.objective.teacher
        teacher = known_sizes(study, named)
        if student is not None and (teacher is not None or named is None):
            plans.append(budget(recipe, student, teacher, gpu))
    return plans


def plan_text(plan: Plan) -> str:
    """Describe the plan of one run."""
    horizon, gpu = plan.recipe.horizon, plan.gpu
    teacher = f", teacher {format_count(plan.teacher.parameters)}" if plan.teacher else ""
    recomputed, whole = (f"{size / GIB:,.1f}" for size in plan.activations)
    snapshots, master = len({0, *horizon.snapshot_steps()}), 4 * plan.student.parameters / 1e9
    return "\n".join(
        (
            wrap_text(
                f"{plan.recipe.name}: {format_count(plan.student.parameters)} weights{teacher}; a micro-batch is "
                f"{plan.rows} x {plan.length:,} tokens, whose activations take {recomputed} GiB recomputed "
                f"and {whole} GiB kept"
            ),
            "",
            align_columns(_memory(plan)),
            "",
            align_columns(_time(plan)),
            "",
            f"{plan.needed} x {gpu.name} needed, {plan.declared:g} declared: "
            f"{plan.total / 3600 * plan.declared:,.0f} GPU hours",
            wrap_text(
                f"kept: {snapshots} snapshots of {master:,.1f} GB, {plan.snapshots / 1e9:,.0f} GB "
                f"before compression; resume state {plan.resume / 1e9:,.1f} GB"
            ),
        )
    )


def describe_assumptions(gpu: Gpu) -> str:
    """Describe what all plans assume."""
    return wrap_text(
        f"Good to a factor of two. Assumed: {gpu.name} with {gpu.memory / GIB:.0f} GiB, {gpu.flops / 1e12:.0f} TFLOP/s "
        f"dense bf16 and {gpu.bandwidth / 1e12:g} TB/s, of which {ROOM:.0%}, {RATE:.0%} and {STREAM:.0%} are reached; "
        f"prompts of {PROMPT} tokens; responses as long as the limit for memory and {SHARE:.0%} of it for time; phases "
        "one after the other; work split evenly over the trainer's workers. One of them works on one GPU: where it "
        "needs more, resources.workers splits it. Not counted: prefill, evaluation, sending weights to actors, "
        "verifiers, the engines' own memory."
    )


def format_count(weights: int) -> str:
    """`8.19e9`."""
    return f"{weights / 1e9:.3g}e9" if weights >= 1e8 else f"{weights:,}"


def _memory(plan: Plan) -> list[list[str]]:
    room = ROOM * plan.gpu.memory
    lines = [["actor", "GPUs", "holds", f"{'GiB':>7}", ""]]
    for actor in plan.actors:
        names = [actor.name, f"{actor.workers.actors} x {actor.workers.gpus:g}"]
        for part in actor.parts:
            when = WHEN.get(part.phase, f"in {part.phase}")
            lines.append([*names, part.name, f"{part.bytes / GIB:7.1f}", when])
            names = ["", ""]
        needed = actor.gpus(plan.gpu)
        fits = "fits on one GPU" if needed == 1 else f"does not fit in {room / GIB:.0f} GiB: {needed} GPUs"
        lines.append(["", "", "largest phase", f"{actor.peak / GIB:7.1f}", fits])
    return lines


def _time(plan: Plan) -> list[list[str]]:
    steps = plan.recipe.horizon.steps
    phases = plan.seconds | {"all": plan.step}
    return [
        ["phase", f"{'s a step':>8}", f"{f'h for {steps:,} steps':>18}"],
        *([phase, f"{s:8.1f}", f"{s * steps / 3600:18.1f}"] for phase, s in phases.items()),
    ]
