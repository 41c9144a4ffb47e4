"""Diagnostics D1 to D9 of the change of one matrix W_t from its start W0, each number with an error bound.

They need weights only: no gradients, activations or losses. Read `suite` first, with `settings` and `snapshot`; then
the diagnostics (`support`, `subspace_rows` with `rotation` and `drift`, `localization`, `spectrum`, `locking`,
`null_rows`; `projected` for a run that is still training); then the modules that they use:

    exact        dense float64 factors: small matrices, and the reference for all other routes
    base         factors of W0, computed once and cached
    certified    rotation and leading shifts of large matrices: `drr` solves, `certificate` bounds
    update       norms, spectrum and leading subspaces of W_t - W0
    scale        powers of two that keep f32 work in range
    attempts     turns a failed computation into the reason of null rows
    gram krylov gemm bitset nulls views    the kernels of these

Source: arXiv 2606.07082, sections 3.1, 4.1, 4.2 and appendices C.3 and E.
"""

VERSION = 4  # part of every row's method; raise it when a number may change
TABLES = (  # the tables that can be measured for a matrix
    "update_support",
    "rotation",
    "singular_shift",
    "spectral_drift",
    "localization",
    "update_norm",
    "update_spectrum",
    "hill",
    "locking",
    "nulls",
)
