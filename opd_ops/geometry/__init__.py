"""Where the weights went: diagnostics D1 to D9 of one matrix W_t against its start W0, each number with its error bar.

It reads weights only; gradients, activations and losses are outside. Read `suite` first, with `settings` and
`snapshot`, then the diagnostics (`support`, `leading` with `rotation` and `drift`, `localization`, `spectrum`,
`locking`, `null_rows`; `projected` for a run that is still training), then what they stand on:

    exact        dense float64 factors: small matrices, and the reference for everything else
    base         what is known of W0, computed once and kept
    certified    rotation and leading shifts of large matrices: `drr` solves, `certificate` bounds
    update       norms, spectrum and leading subspaces of W_t - W0
    scale        powers of two that keep f32 work in range
    attempts     what cannot be computed becomes the reason of null rows
    gram krylov gemm bitset nulls views    the kernels of these

Source: arXiv 2606.07082, sections 3.1, 4.1, 4.2 and appendices C.3 and E.
"""

VERSION = 4  # part of every row's method; raise it when a number may change
TABLES = (  # what can be measured of a matrix; one table each
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
