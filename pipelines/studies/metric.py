"""A metric: one number per run, read from one column of one table at one point of the run."""

from dataclasses import dataclass, replace
from typing import Literal

Unit = Literal["percent", "deg", ""]
START, EARLY, END = 0.0, 0.05, 1.0
RUN_TABLES = ("evaluation", "training")  # which have no matrices
PARAMETERS = "numel"  # the weight by number of weights; a column of update_support


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One column of one table at one point of the run, averaged over matrices."""

    words: str  # name for readers, view included
    family: str = ""  # name without the view and the share of the run
    table: str  # table of the lake
    column: str  # column of the table
    where: tuple[tuple[str, str | int | float], ...] = ()  # column equals value
    at: float = END  # share of the run's steps: START and END are exact, else the nearest snapshot
    since: float | None = None  # if set, the value is the change since this share of the run
    cut: str | None = None  # column fixed at its largest value among those with the fewest nulls
    weight: str | None = None  # PARAMETERS weights matrices by their number of weights; None is unweighted
    unit: Unit = ""  # percent: a fraction shown as %
    remark: str = ""  # what to know before reading the number

    @property
    def view(self) -> str | None:
        value = dict(self.where).get("view")
        return value if isinstance(value, str) else None

    def with_other_weighting(self) -> "Metric | None":
        """The same metric with the other weighting, by parameters or by matrices; None for metrics without matrices."""
        if self.table in RUN_TABLES:
            return None
        return replace(self, weight=None if self.weight else PARAMETERS)

    def address(self, cut: int | None = None) -> str:
        """`table.column` and all other settings of the metric, for the table `verdicts`."""
        fixed = [str(value) if key == "view" else f"{key}={value}" for key, value in self.where]
        if self.cut is not None and cut is not None:
            fixed.append(f"{self.cut}={cut}")
        if self.since is not None:
            fixed.append(f"change since {100 * self.since:g} %")
        elif self.at == START:
            fixed.append("start")
        elif self.at != END:
            fixed.append(f"at {100 * self.at:g} %")
        return ", ".join([f"{self.table}.{self.column}", *fixed])
