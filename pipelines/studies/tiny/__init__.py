"""The tiny study: a 398,080-parameter Qwen3 on digit chains, trained for real in minutes on two cores.

`core` has the arms of the paper; `objectives`, `interventions` and `controls` their variants; `steering` runs that are
disturbed when they leave a band; `scaling` the core arms at other sizes.
"""

from pipelines.studies.study import Study
from pipelines.studies.tiny.controls import controls
from pipelines.studies.tiny.core import ARCHITECTURE, POST, STEPS, base, opd, rlvr, sft, sft_matched, teacher
from pipelines.studies.tiny.interventions import interventions
from pipelines.studies.tiny.objectives import ALPHAS, mix, objectives
from pipelines.studies.tiny.scaling import helpers, scaling
from pipelines.studies.tiny.steering import steering

__all__ = [
    "ALPHAS",
    "ARCHITECTURE",
    "POST",
    "STEPS",
    "base",
    "controls",
    "interventions",
    "mix",
    "objectives",
    "opd",
    "rlvr",
    "scaling",
    "sft",
    "sft_matched",
    "steering",
    "study",
    "teacher",
]


def study() -> Study:
    return Study(
        name="tiny",
        title="Digit chains on a 0.4M-parameter Qwen3, trained from scratch",
        models=(base(), teacher()),
        suites={
            "core": (sft(), opd(), rlvr(), sft_matched()),
            "objectives": objectives(),
            "interventions": interventions(),
            "controls": controls(),
            "steering": steering(),
            "scaling": scaling(),
        },
        helpers=helpers(),
        seeds=(0, 1, 2),
        anchor="sft",
        nightly=("core",),
        story="pipelines.paper.story:STORY",
        minutes="3-5 minutes",
        pace=2.5e-3,
    )
