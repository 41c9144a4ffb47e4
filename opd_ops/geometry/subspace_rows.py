"""Rows of rotation, singular shifts and drift (D2, D3) of one view at all cuts, from factors of W0 and W_t.

    dense       float64 factors of both
    certified   base factors of W0 and `Tuned`, each number with its certificate

Not measured: the spectrum of W_t - W0 (see `spectrum`).
"""

from opd_ops.geometry import drift, rotation
from opd_ops.geometry.base import BaseFactors
from opd_ops.geometry.certified import Tuned
from opd_ops.geometry.exact import SIDES, Factors
from opd_ops.geometry.settings import Settings
from opd_ops.geometry.snapshot import Tables, tag_method
from opd_ops.geometry.update import Update


def rows_from_factors(base: Factors, tuned: Factors, update: Update, settings: Settings, view: str) -> Tables:
    """The rows from float64 factors of W0 and W_t. If nothing moved, both must be the same object."""
    tables: Tables = {}
    if settings.wants("spectral_drift"):
        rows = drift.rows(base.spectrum, base.spectrum if tuned is base else tuned.spectrum, update.frobenius, view)
        tables["spectral_drift"] = tag_method(base.method, rows)
    cuts, shifts = [], []
    for k in settings.k:
        reason = rotation.explain_undefined(base, tuned, k)
        if reason is not None:
            cuts += rotation.missing(k, view, reason)
            shifts += drift.missing_shift(k, view, reason)
            continue
        cut = rotation.exact_cut(base, tuned, k)
        cuts += [cut.row(side, view) for side in SIDES]
        noise = 0.0 if tuned is base else float((base.spectrum.noise + tuned.spectrum.noise)[:k].max())
        shifts.append(drift.Shift(k, tuned.s[:k] - base.s[:k], noise, base.s[:k], base.method).row(view))
    return tables | settings.requested_tables(
        rotation=tag_method(base.method, cuts), singular_shift=tag_method(base.method, shifts)
    )


def rows_from_bases(base: BaseFactors, tuned: Tuned, update: Update, settings: Settings, view: str) -> Tables:
    """The rows from base factors, with certificates."""
    tables: Tables = {}
    method = base.spectrum.method
    if settings.wants("spectral_drift"):
        start = tuned.base.spectrum
        spectrum = start if update.zero else tuned.spectrum
        tables["spectral_drift"] = tag_method(method, drift.rows(start, spectrum, tuned.frobenius, view))
    if not settings.wants("rotation", "singular_shift"):
        return tables
    reasons = {k: tuned.undefined(k) for k in settings.k}
    defined = tuple(k for k in settings.k if reasons[k] is None)
    cuts, shifts = tuned.solve(defined) if defined else ({}, {})
    reasons |= {k: f"sigma_{k} of W_t is numerically zero" for k in defined if k not in cuts}
    rows, moved = [], []
    for k, reason in reasons.items():
        if reason is not None:
            rows += tag_method(method, rotation.missing(k, view, reason))
            moved += tag_method(method, drift.missing_shift(k, view, reason))
        else:
            rows += [(cuts[k].method, cuts[k].row(side, view)) for side in SIDES]
            moved.append((shifts[k].method, shifts[k].row(view)))
    return tables | settings.requested_tables(rotation=rows, singular_shift=moved)
