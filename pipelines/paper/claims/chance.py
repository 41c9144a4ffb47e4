"""The form of claims about the level of chance, and the `Forms` of the paper's claims."""

from pipelines.paper.arms import ARMS, REMARKS, REPORTED, label
from pipelines.statistics.forms import Forms
from pipelines.statistics.metrics import Metric
from pipelines.studies.claim import Claim, Control, Kind
from pipelines.studies.story import Story

FORMS = Forms(Story(arms=ARMS, reported=REPORTED, remarks=REMARKS))
CHANCE = 0.5
CHANCE_BAND = 0.04  # the paper's SFT overlap lies 1.88 points above its chance level; 4 % of 0.5 is 2 points


def against_chance(
    metric: Metric, kind: Kind, arm: str, words: str, note: str, band: float = 0.0, controls: tuple[Control, ...] = ()
) -> Claim:
    reported = FORMS.story.reported_value(metric, arm)
    return Claim(
        text=f"{metric.words}: {label(arm)} {words}",
        statement=f"{label(arm)} {words}",
        section="paper",
        kind=kind,
        metric=metric,
        left=arm,
        right=CHANCE,
        constant="chance",
        band=band,
        controls=controls,
        paper=reported if "chance" in reported else f"{reported} (chance 30 %)",
        note=f"{note} {FORMS.story.describe_metric(metric)}",
    )
