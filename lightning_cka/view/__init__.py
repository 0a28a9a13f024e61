"""From results to one interactive page: a heatmap that moves through training, with drift, curves and flags.

In: `CKAResult` objects, or the folders of old runs. Out: a payload of plain values, and an HTML page that shows it.
This room knows no Trainer and no logger. It may import from `hsic`, `runtime` and `compare`.
"""
