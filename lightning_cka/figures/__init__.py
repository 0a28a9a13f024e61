"""From results to pictures: heatmaps, trends, trajectories and animations.

In: `CKAResult` objects. Out: matplotlib figures, PNG and GIF files.
This room knows no Trainer and no logger. It imports from `compare` and `runtime`.
"""
