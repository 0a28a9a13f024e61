"""Which samples a model is shown, how they are shown, and the Gram bank that results.

In: a loader and a model. Out: a `ProbeSet` and a `GramBank`.
This room does not know what is computed from a bank. It imports from `hsic` and `runtime`.
"""
