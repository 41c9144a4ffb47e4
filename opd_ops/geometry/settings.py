"""What is measured of a matrix: cuts, mask weights and tables."""

from dataclasses import dataclass

from opd_ops.geometry import TABLES


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What to measure. Cuts past min(m, n) give null rows with a reason, so one setting serves all shapes."""

    k: tuple[int, ...] = (16,)  # cuts of rotation and singular shifts (D2, D3)
    alpha: tuple[float, ...] = (0.3, 0.5)  # mask weights of localization (D4), fractions of the matrix
    hill_k: tuple[int, ...] = (16, 32, 64)  # cuts of Hill (D7); 10 % of min(m, n) is always added
    locking_k: tuple[int, ...] = (16,)  # cuts of locking (D8)
    tables: tuple[str, ...] = TABLES  # which to fill; only what they need is computed
    dense: bool = False  # use float64 factors for any size: the reference for tests

    def __post_init__(self) -> None:
        for name, least in (("k", 1), ("hill_k", 2), ("locking_k", 1)):
            cuts = getattr(self, name)
            if len(set(cuts)) < len(cuts) or any(cut < least for cut in cuts):
                raise ValueError(f"{name}={cuts}: cuts are distinct integers from {least} up")
        if len(set(self.alpha)) < len(self.alpha) or not all(0.0 < alpha < 1.0 for alpha in self.alpha):
            raise ValueError(f"alpha={self.alpha}: mask weights are distinct and lie between 0 and 1")
        if unknown := [table for table in self.tables if table not in TABLES]:
            raise ValueError(f"unknown diagnostic {unknown[0]!r}; known: {', '.join(TABLES)}")

    def wants(self, *tables: str) -> bool:
        """Whether any of these tables is requested."""
        return any(table in self.tables for table in tables)

    def requested_tables(self, **tables: list) -> dict[str, list]:
        """The requested ones of these tables."""
        return {table: rows for table, rows in tables.items() if self.wants(table)}
