"""From results to pictures: heatmaps, drift maps, trends, trajectories and animations.

In: `CKAResult` objects. Out: matplotlib figures, PNG and GIF files.
This room knows no Trainer and no logger. It may import from `hsic`, `runtime`, `probe` and `compare`.
"""
