"""Make claims of each form, with the labels, published values and remarks of a story."""

from dataclasses import dataclass

from pipelines.statistics.metrics import STABLE_RANK, STABLE_RANK_EARLY, Metric
from pipelines.studies.claim import SIGNS, Claim, Control, Kind, Section
from pipelines.studies.story import Story

FLAT_BAND = 0.20  # of a value, within which another follows it, unless a claim says otherwise
NOT_EQUALITY = "Null means not distinguished by these seeds, which is not proof of equality."
NO_CONTROL = "no such control"


@dataclass(frozen=True)
class Forms:
    """Makes claims for a story. The story needs arms, reported values and remarks, but no claims."""

    story: Story

    def ordering(
        self,
        metric: Metric,
        kind: Kind,
        left: str,
        right: str,
        *,
        like: tuple[str, str] | None = None,
        section: Section = "paper",
        suite: str = "core",
        controls: tuple[Control, ...] = (),
        paper: str = "",
    ) -> Claim:
        """left < right, or left > right.

        like: arms whose published values are quoted, by default left and right. paper: text instead of those values.
        """
        left_source, right_source = like or (left, right)
        both = f"{self.story.reported_value(metric, left_source)} / {self.story.reported_value(metric, right_source)}"
        reported = paper or (
            both if like is None else f"{both} ({self.story.label(left_source)}, {self.story.label(right_source)})"
        )
        statement = f"{self.story.label(left)} {SIGNS[kind]} {self.story.label(right)}"
        return Claim(
            text=f"{metric.words}: {statement}",
            statement=statement,
            section=section,
            suite=suite,
            kind=kind,
            metric=metric,
            left=left,
            right=right,
            controls=controls,
            paper=reported,
            note=self.story.describe_metric(metric),
        )

    def trend(self, view: str, arm: str, kind: Kind, verb: str, control: Control) -> Claim:
        """The stable rank at the end against the stable rank at 5 % of the run."""
        flat = (
            f"Flat: the 95 % interval lies within {100 * FLAT_BAND:g} % of the value at 5 %. " if kind == "near" else ""
        )
        metric = STABLE_RANK[view]
        return Claim(
            text=f"stable rank, {view}: {self.story.label(arm)} {verb}",
            statement=f"{self.story.label(arm)} {verb}",
            section="paper",
            kind=kind,
            metric=metric,
            left=arm,
            right=arm,
            baseline=STABLE_RANK_EARLY[view],
            band=FLAT_BAND if kind == "near" else 0.0,
            controls=(control,),
            paper=self.story.reported_value(metric, arm),
            note=flat + self.story.describe_metric(metric),
        )

    def difference(
        self,
        metric: Metric,
        section: Section,
        left: str,
        right: str,
        words: str,
        paper: str,
        suite: str = "core",
        controls: tuple[Control, ...] = (),
    ) -> Claim:
        return Claim(
            text=f"{self.story.label(left)} differs from {words}: {metric.words}",
            statement=f"{self.story.label(left)} differs from {words}",
            section=section,
            suite=suite,
            kind="differs",
            metric=metric,
            left=left,
            right=right,
            controls=controls,
            paper=paper,
            note=f"{NOT_EQUALITY} {self.story.describe_metric(metric)}".strip(),
        )

    def equivalence(
        self,
        metric: Metric,
        left: str,
        right: str,
        *,
        suite: str,
        section: Section = "ours",
        departs: bool = False,
        band: float = FLAT_BAND,
        margin: float = 0.0,
        controls: tuple[Control, ...] = (),
        paper: str = NO_CONTROL,
        note: str = "",
    ) -> Claim:
        """left is within a declared band around right or, if it `departs`, outside it."""
        wide = f"{100 * margin:g} points" if margin else f"{100 * band:g} %"
        statement = f"{self.story.label(left)} {'departs from' if departs else 'follows'} {self.story.label(right)}"
        where = "beyond" if departs else "within"
        return Claim(
            text=f"{metric.words}: {statement}",
            statement=statement,
            section=section,
            suite=suite,
            kind="far" if departs else "near",
            metric=metric,
            left=left,
            right=right,
            band=0.0 if margin else band,
            margin=margin,
            controls=controls,
            paper=paper,
            note=" ".join(
                filter(
                    None,
                    (
                        f"The 95 % interval lies {where} {wide} of {self.story.label(right)}.",
                        note,
                        self.story.describe_metric(metric),
                    ),
                )
            ),
        )


def random_basis(left: str, right: str) -> Control:
    """The placebo control of a confined arm: `left`, confined to random directions, against `right`."""
    return Control(words="a random basis in place of its own", kind="placebo", left=left, right=right)
