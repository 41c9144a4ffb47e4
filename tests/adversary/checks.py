"""Every number of every row against the oracle: inside its own error bar, or null for a reason that is true."""

import math
from dataclasses import dataclass, field

import torch

from opd_ops.geometry import TABLES
from opd_ops.geometry.null_rows import SEED
from opd_ops.geometry.nulls import shuffle_entries
from opd_ops.geometry.suite import Settings, measure_matrix
from opd_ops.geometry.views import as_view, views_of_dtype
from tests.adversary.families import STARTS, Case
from tests.adversary.truth import BACKWARD, Oracle, angles

HILL = (4, 16)
NEARLY_ZERO = {"f32": 6e-3, "f64": 2e-6}  # of sigma_1: below it a route may say "numerically zero"
STORED = ("the null rounds to a zero update", "the null exceeds the largest bf16")
ROUNDED = 1e-12  # relative: sums and quotients of the oracle itself


def tables(case: Case) -> tuple[str, ...]:
    """What is asked of a case: every second round certificates alone, which then know no spectrum to lean on.

    Nulls are spectra of other matrices, by the same code: once is enough, where they cost least.
    """
    if case.number // len(STARTS) % 2:
        return ("rotation", "singular_shift")
    return TABLES if case.regime == "dense" else tuple(table for table in TABLES if table != "nulls")


@dataclass
class Report:
    """count of numbers compared, and what was wrong with some."""

    count: int = 0
    violations: list[str] = field(default_factory=list)

    def require(self, holds: bool, text: str) -> None:
        self.count += 1
        if not holds:
            self.violations.append(text)

    def within(self, value: float, true: float, error: float, name: str) -> None:
        self.require(abs(value - true) <= error, f"{name} {value:.9g} +- {error:.3g}, truth {true:.9g}")


class Check:
    """The rows of one case. Errors: whatever the engine raises."""

    def __init__(self, case: Case) -> None:
        self.case, self.report = case, Report()
        self.tables = tables(case)
        settings = Settings(k=case.cuts, locking_k=case.cuts, hill_k=HILL, alpha=(0.3,), tables=self.tables)
        snapshots = [(step, weight) for step, weight in enumerate(case.snapshots, 1)]
        found = measure_matrix(case.w0, snapshots, settings=settings, projection=True)
        self.rows, self.problems = found.rows, found.problems
        self.views = views_of_dtype(case.snapshots[0].dtype)
        self.before = {view: Oracle(as_view(case.w0, view)) for view in self.views}
        self.after = {(s, view): Oracle(as_view(w, view)) for s, w in snapshots for view in self.views}
        self.update = {key: Oracle(oracle.weight - self.before[key[1]].weight) for key, oracle in self.after.items()}

    def run(self) -> Report:
        self.report.require(not self.problems, f"problems {self.problems}")
        for table in self.tables:
            self.report.require(bool(self.rows[table]), f"{table} has no rows")
            for row in self.rows[table]:
                getattr(self, f"_{table}")(row, f"step {row['step']} {row['view']} {table}")
        return self.report

    def _of(self, row: dict) -> tuple[Oracle, Oracle, Oracle]:
        """W0, W_t and the update of a row."""
        key = (row["step"], row["view"])
        return self.before[row["view"]], self.after[key], self.update[key]

    def _update_support(self, row: dict, name: str) -> None:
        before, after, _ = self._of(row)
        true = int((before.weight == after.weight).sum()) / before.weight.numel()
        self.report.within(row["unchanged"], true, 1e-15, name)

    def _localization(self, row: dict, name: str) -> None:
        before, after, update = self._of(row)
        true = int((before.weight != after.weight).sum()) / before.weight.numel()
        self.report.within(row["density"], true, 1e-15, f"{name} density")
        self.report.require((row["overlap"] is None) == update.zero, f"{name} overlap {row['overlap']}")
        self.report.require(row["overlap"] is None or -1e-9 <= row["overlap"] <= 1 + 1e-9, f"{name} {row['overlap']}")

    def _rotation(self, row: dict, name: str) -> None:
        before, after, _ = self._of(row)
        k, side = row["k"], row["side"]
        name = f"{name} {side} k={k} [{row['method']}]"
        if row["reason"] is not None:
            self._lacking(row, k, before, after, name=name)
            return
        blur = math.degrees(before.blur(k) + after.blur(k))
        if k == len(before.basis(side, 1)):
            true = torch.zeros(k, dtype=torch.float64)
        else:
            true = angles(before, after, side, k)
        summaries = {"mean_deg": true.mean(), "rms_deg": true.square().mean().sqrt(), "max_deg": true[-1]}
        for column, value in summaries.items():
            self.report.within(row[column], float(value), row["error_deg"] + blur + 1e-12, f"{name} {column}")
        for i, value in enumerate(true.tolist()):
            error = row["angle_error_deg"] + blur + 1e-12
            self.report.within(row["angles_deg"][i], value, error, f"{name} angle {i}")
        gap = (float(before.s[k - 1]) - (float(before.s[k]) if k < len(before.s) else 0.0)) * before.unit
        self.report.within(row["gap"], gap, 1e-7 * before.unit * float(before.s[0]), f"{name} gap")

    def _singular_shift(self, row: dict, name: str) -> None:
        before, after, _ = self._of(row)
        k = row["k"]
        name = f"{name} k={k} [{row['method']}]"
        if row["reason"] is not None:
            self._lacking(row, k, before, after, name=name)
            return
        true = after.s[:k] * after.unit - before.s[:k] * before.unit
        blur = BACKWARD * (float(after.s[0]) * after.unit + float(before.s[0]) * before.unit)
        for i, value in enumerate(true.tolist()):
            self.report.within(row["shifts"][i], value, row["error"] + blur, f"{name} shift {i}")
        self.report.within(row["largest"], float(true.abs().max()), row["error"] + blur, f"{name} largest")

    def _spectral_drift(self, row: dict, name: str) -> None:
        before, after, update = self._of(row)
        if row["reason"] is not None:
            self.report.require(before.zero and row["reason"] == "W0 is zero", f"{name}: {row['reason']}")
            return
        ratio = after.unit / before.unit
        true = float((after.s * ratio - before.s).norm() / before.s.norm())
        blur = BACKWARD * (1 + ratio * float(after.s.norm() / before.s.norm())) * 3
        self.report.within(row["nss"], true, row["error"] + blur, name)
        mirsky = float(update.s.norm() / before.s.norm()) * (update.unit / before.unit)
        self.report.within(row["mirsky"], mirsky, 1e-6 * mirsky, f"{name} mirsky")
        self.report.require(row["nss"] <= row["mirsky"] * (1 + 1e-6) + row["error"], f"{name} above Mirsky's bound")

    def _update_norm(self, row: dict, name: str) -> None:
        before, _, update = self._of(row)
        frobenius = float(update.s.norm()) * update.unit
        self.report.within(row["frobenius"], frobenius, 1e-6 * frobenius, f"{name} frobenius")
        if not before.zero:
            true = float(update.s.norm() / before.s.norm()) * (update.unit / before.unit)
            self.report.within(row["relative_norm"], true, 1e-6 * true, f"{name} relative")
        if update.zero:
            self.report.require("zero update" in str(row["reason"]), f"{name}: {row['reason']}")
            return
        true = float((update.s.norm() / update.s[0]).square())
        error = row["stable_rank_error"] + (1e-6 if row["dtype"] != "bf16" else ROUNDED) * true
        self.report.within(row["stable_rank"], true, error, f"{name} stable rank [{row['method']}]")
        self.report.require(row["stable_rank"] <= len(update.s) * (1 + 1e-5), f"{name} above the rank")
        norm = float(update.s[0]) * update.unit
        relative = row["stable_rank_error"] / (2 * row["stable_rank"]) + 1e-6
        self.report.within(row["spectral_norm"], norm, relative * norm, f"{name} spectral norm")

    def _update_spectrum(self, row: dict, name: str) -> None:
        _, _, update = self._of(row)
        if update.zero:
            self.report.require(row["reason"] == "zero update", f"{name}: {row['reason']}")
            return
        s = update.s
        squares = s.square()
        true = {
            "effective_rank": float(torch.special.entr(s / s.sum()).sum().exp()),
            "effective_rank_energy": float(torch.special.entr(squares / squares.sum()).sum().exp()),
            "energy_top16": float(squares[:16].sum() / squares.sum()),
        }
        for column, value in true.items():
            error = row[f"{column}_error"] + (1e-6 if len(s) > 64 else 1e-9) * value
            self.report.within(row[column], value, error, f"{name} {column} [{row['method']}]")

    def _hill(self, row: dict, name: str) -> None:
        _, _, update = self._of(row)
        k, s = row["k"], update.s
        name = f"{name} k={k} [{row['method']}]"
        if row["reason"] is not None:
            close = k <= len(s) and "rounding" in row["reason"] and _spread(s, k) <= 1.01 * _rounding(row, update, k)
            self._lacking(row, k, update, name=name, also=close)
            return
        true = 1.0 / _spread(s, k)
        self.report.within(row["hill"], true, row["error"] + 1e-6 * abs(true), name)

    def _locking(self, row: dict, name: str) -> None:
        first = self.update[row["step"], row["view"]]
        second = self.update[row["step_other"], row["view"]]
        k, side = row["k"], row["side"]
        name = f"{name} {side} k={k} [{row['method']}]"
        if row["reason"] is not None:
            self._lacking(row, k, first, second, name=name)
            return
        a, b = first.basis(side, k), second.basis(side, k)
        true = float((a.T @ b).square().sum()) / k
        blur = 2 * (first.blur(k) + second.blur(k)) + 1e-12
        self.report.within(row["similarity"], true, row["error"] + blur, name)

    def _nulls(self, row: dict, name: str) -> None:
        _, _, update = self._of(row)
        name = f"{name} {row['null']} [{row['method']}]"
        if row["reason"] is not None:
            stored = row["null"] == "fixed_direction" and row["reason"] in STORED
            self.report.require(stored or row["reason"] == "zero update", f"{name}: {row['reason']}")
            return
        possible = 1 - 1e-6 <= row["stable_rank"] <= len(update.s) * (1 + 1e-5)
        self.report.require(possible, f"{name} stable rank {row['stable_rank']}")
        if row["null"] == "shuffled":
            s = torch.linalg.svdvals(shuffle_entries((update.weight / update.unit).float(), SEED).double())
            true = float(s.square().sum() / s[0].square())
            self.report.within(row["stable_rank"], true, 1e-5 * true, f"{name} stable rank")

    def _lacking(self, row: dict, k: int, *oracles: Oracle, name: str, also: bool = False) -> None:
        """A null row: the cut is past the end, or one of the matrices has no k-th direction above rounding."""
        past = k > len(oracles[0].s)
        f32 = "f32" in row["method"] or "step_other" in row  # whose two steps may have taken two routes
        floor = NEARLY_ZERO["f32" if f32 else "f64"]
        zero = any(one.zero or (not past and float(one.s[k - 1]) <= floor * float(one.s[0])) for one in oracles)
        self.report.require(past or zero or also, f"{name} lacks a value: {row['reason']}")


def _spread(s: torch.Tensor, k: int) -> float:
    """Mean of log(s_i / s_k) over i < k."""
    return float((s[: k - 1] / s[k - 1]).log().mean())


def _rounding(row: dict, update: Oracle, k: int) -> float:
    """What the rounding of the row's Gram matrix leaves of `_spread`: |d sigma_i| <= eta sigma_1^2 / sigma_i."""
    eps = torch.finfo(torch.float32 if "f32" in row["method"] else torch.float64).eps
    relative = 4 * max(update.weight.shape) ** 0.5 * eps * (update.s[0] / update.s[:k]) ** 2
    return float(relative[: k - 1].mean() + relative[k - 1])


def check(case: Case) -> Report:
    """All checks of a case; an exception of the engine is a violation."""
    try:
        report = Check(case).run()
    except Exception as error:  # the engine's own: one matrix may end nothing
        report = Report(1, [f"{type(error).__name__}: {error}"])
    report.violations = [f"{case.label}: {text}" for text in report.violations]
    return report
