"""One measured value beside its goal."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """met: None where there is no goal, or nothing to hold against it; then `note` says why."""

    figure: int
    case: str
    quantity: str
    value: float | None
    unit: str
    goal: str
    met: bool | None
    note: str

    def cells(self) -> list[str]:
        """As text: case, quantity, value with unit, goal, met or missed, note."""
        shown = "-" if self.value is None else f"{self.value:.3g} {self.unit}".rstrip()
        verdict = {True: "met", False: "missed", None: ""}[self.met]
        return [self.case, self.quantity, shown, self.goal, verdict, self.note]


def row(
    figure: int,
    case: str,
    quantity: str,
    value: float | None,
    unit: str = "",
    *,
    least: float | None = None,
    most: float | None = None,
    note: str = "",
) -> Row:
    """A row whose goal is value >= least and value <= most, where given."""
    goal = " and ".join(f"{sign} {bound:g}" for sign, bound in ((">=", least), ("<=", most)) if bound is not None)
    met = None
    if goal and value is not None:
        met = (least is None or value >= least) and (most is None or value <= most)
    return Row(figure, case, quantity, value, unit, goal, met, note)
