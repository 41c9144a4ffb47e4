"""The story of a study for its report: arms, controls, claims, published values and extra exhibits.

Claims are made of metrics: `pipelines.statistics.metrics` has the ready ones, `pipelines.statistics.forms` their forms.
A study without a story gets the defaults of `pipelines.statistics.stories`: arms under their own names in declared
order, and every pair of core arms compared in every metric.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from pipelines.studies.claim import Claim
from pipelines.studies.metric import Metric

if TYPE_CHECKING:
    import polars as pl

Tables = Mapping[str, "pl.LazyFrame"]  # lake tables of one study, by name


@dataclass(frozen=True, kw_only=True)
class Arm:
    """Label and look of an arm. `dash` and `shape` repeat the colour.

    An arm without a colour takes one from the palette by its position.
    """

    key: str  # the part of the recipe after "<study>."
    label: str = ""  # name in tables and legends; the key where it is empty
    meaning: str = ""  # one line for the reader
    control: str | None = None  # key of its matched control, which differs from it in one thing
    color: str = ""  # sRGB hex
    dash: tuple[int, ...] = (1, 0)  # stroke pattern in px; (1, 0) is solid
    shape: str = "circle"  # Vega point shape


@dataclass(frozen=True, kw_only=True)
class Group:
    """Arms of a suite that differ from what they are compared with in the same way."""

    name: str
    arms: tuple[str, ...]  # keys
    differs: str = ""  # in words that follow the name


@dataclass(frozen=True, kw_only=True)
class Suite:
    """The table of a suite other than core: its arms in groups, after the reference arms of core."""

    name: str  # of the suite in the study, and the section's anchor on the page
    title: str
    meaning: str = ""
    references: tuple[str, ...] = ()  # arms of core
    groups: tuple[Group, ...] = ()
    parents: tuple[str, ...] = ()  # arms that these continue, whose rows stand together
    continued: bool = False  # the arms go on from another run's step: their updates and accuracies count from there

    @property
    def arms(self) -> tuple[str, ...]:
        """The keys in the order of their rows."""
        arms = tuple(arm for group in self.groups for arm in group.arms)
        if not self.parents:
            return arms
        return tuple(arm for parent in self.parents for arm in arms if arm.startswith(f"{parent}-at"))


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Arms that a suite repeats at other sizes, as `<size>-<arm>`; the arms of core have no prefix, the size "".

    widths: sizes to which an exponent in the number of weights is fitted. ratios: a factor and the size it compares
    with core. titles: column heads by factor.
    """

    suite: str  # whose arms these are; it has a table of its own
    arms: tuple[str, ...]
    widths: tuple[str, ...]
    ratios: Mapping[str, str]
    titles: Mapping[str, str]
    caveat: str


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """An altair chart, its final numbers, and sentences about missing runs."""

    chart: Any | None  # None: nothing can be drawn, and `absent` says why
    numbers: "pl.DataFrame"  # columns quantity, arm, view, value, low, high, seeds, paper
    absent: tuple[str, ...] = ()  # sentences: which part is not there, and what would bring it


class Exhibit(Protocol):
    """A table or figure that a story adds to the page and to the asset graph."""

    @property
    def key(self) -> str: ...  # anchor on the page, asset and file name
    @property
    def title(self) -> str: ...
    @property
    def needs(self) -> tuple[str, ...]: ...  # tables
    @property
    def shows(self) -> str: ...  # one plain sentence
    @property
    def not_shown(self) -> str: ...  # what must not be read off it
    @property
    def suites(self) -> tuple[str, ...]: ...  # of which a run must be there
    @property
    def reported(self) -> str: ...  # what is published of it, in words
    @property
    def draw(self) -> Callable[..., Drawing]: ...  # (tables, store) -> Drawing


LEADS = ("unchanged", "roles", "angles", "drift", "overlap", "stable-rank", "norm", "hill", "locking")


@dataclass(frozen=True, kw_only=True)
class Story:
    """The content of a report that does not come from tables. Every field has a default.

    claims: None takes the defaults. reported, remarks: by metric family, what a source reports of an arm, and what to
    know before reading the number. headline: rows of the first screen, five at most. lead: the figure beside them, one
    of `LEADS`. lines: from the decided verdicts and the headline to sentences, the first of which opens the page.
    references: arms that other trajectories are judged by (`opd regime`), with the names verdicts have for them.
    """

    title: str = ""
    about: str = ""  # one sentence that follows what was run
    source: str = ""  # of the reported values, as a column head
    arms: tuple[Arm, ...] = ()
    suites: tuple[Suite, ...] = ()
    claims: tuple[Claim, ...] | None = None
    reported: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    remarks: Mapping[str, str] = field(default_factory=dict)
    headline: tuple[Metric, ...] = ()
    lead: str = "locking"
    lines: "Callable[[pl.DataFrame, pl.DataFrame], list[str]] | None" = None
    exhibits: tuple[Exhibit, ...] = ()
    sizes: Sizes | None = None
    references: Mapping[str, str] = field(default_factory=dict)
    limits: tuple[str, ...] = ()
    core: tuple[str, ...] = ()  # keys of the arms of the suite core, in order; `stories.story_of` fills it

    def find_faults(self, core: Collection[str], every: Collection[str]) -> Iterator[str]:
        """The faults of the story for a study with these arms, one line each. core: of the suite core; every: of all
        suites."""
        for arm in self.arms:
            if arm.key not in every:
                yield f"Arm(key={arm.key!r}) is no arm of the study; it has: {', '.join(every)}"
            if arm.control is not None and (arm.control not in core or arm.control == arm.key):
                yield f"the control {arm.control!r} of arm {arm.key} is no other arm of core; it has: {', '.join(core)}"
        labels = [self.label(key) for key in every]
        for label in sorted({label for label in labels if labels.count(label) > 1}):
            yield f"two arms have the label {label!r}: give one of them another"
        texts = [claim.text for claim in self.default_claims]
        for text in sorted({text for text in texts if texts.count(text) > 1}):
            yield f"two claims have the text {text!r}, which has to tell them apart"
        for claim in self.default_claims:
            for side in (claim.left, claim.right):
                if isinstance(side, str) and side not in every:
                    yield f"the claim {claim.text!r} names {side!r}, no arm of the study; it has: {', '.join(every)}"
        named = [*self.references, *(arm for values in self.reported.values() for arm in values)]
        for key in dict.fromkeys(key for key in named if key not in every):
            yield f"references or reported name {key!r}, no arm of the study; it has: {', '.join(every)}"
        if self.lead not in LEADS:
            yield f"lead={self.lead!r} is no figure; choose one of {', '.join(LEADS)}"

    @property
    def all_arms(self) -> tuple[str, ...]:
        """Keys of all arms: of core, of the suites, and any other that is declared."""
        others = (key for suite in self.suites for key in suite.arms)
        return tuple(dict.fromkeys((*self.core, *others, *(arm.key for arm in self.arms))))

    @property
    def default_claims(self) -> tuple[Claim, ...]:
        """The claims; empty if the defaults are not filled in yet."""
        return self.claims or ()

    @property
    def claim_by_text(self) -> dict[str, Claim]:
        return {claim.text: claim for claim in self.default_claims}

    def arm(self, key: str) -> Arm:
        """An arm as declared; one that is not goes by its key."""
        return next((arm for arm in self.arms if arm.key == key), Arm(key=key))

    def label(self, key: str) -> str:
        """An arm's name in tables and sentences."""
        return self.arm(key).label or key

    def reported_value(self, metric: Metric, arm: str) -> str:
        """What the source reports of an arm, marked where this is not its view: published checkpoints are bf16."""
        value = self.reported.get(metric.family or metric.words, {}).get(arm)
        if value is None:
            return "not reported"
        return f"{value} (bf16)" if metric.view == "master" else value

    def describe_metric(self, metric: Metric) -> str:
        """Remarks on a number: those of the metric and of the story."""
        return " ".join(filter(None, (metric.remark, self.remarks.get(metric.family or metric.words, ""))))
