"""Where the weights went: diagnostics D1 to D9 of one matrix W_t against its start W0, exact and in float64.

This is the reference engine: dense factorizations, no sampling, bit-identical from run to run on one thread. It reads
weights only; gradients, activations and losses are outside. Read `suite` first, then `exact`, then the diagnostics.
Source: arXiv 2606.07082, sections 3.1, 4.1, 4.2 and appendices C.3 and E.
"""

VERSION = 1  # part of every row's method; raise it when a number may change
