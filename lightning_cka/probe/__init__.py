"""Choose the probe samples, show them to a model, and keep its Gram matrices.

Input: a loader and a model. Output: a `ProbeSet` and a `GramBank`. The room imports only `hsic` and `runtime`, and
does not know what is computed from a bank.

A batch passes through these modules:

1. `seeded_sampling` draws the probe set from a validation loader; `given_batches` takes a user's batches as they are.
2. `dataset_probe` and `stream_probe` are the two kinds of `probe_set`.
3. `dry_run` finds the layers that can be compared.
4. `show_probe_set` passes each batch to the model, by the rules in `forward`.
5. `gram_hooks` turns each layer's output into `features` and these into a Gram matrix.
6. `bank` keeps the Gram matrices; `bank_format` is its file format.
"""
