"""Measures of one large block as they are defined: from features, in float64, with loops.

The package does not import this module.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import orthogonal_procrustes


def centered(x):
    x = np.asarray(x, np.float64).reshape(len(x), -1)
    return x - x.mean(0)


def procrustes_distance(x, y):
    """Return the angle in radians between x and the orthogonal transformation of y that is closest to x.

    The features with fewer columns get columns of zeros. Then the transformation is a square orthogonal matrix.
    """
    x, y = centered(x), centered(y)
    width = max(x.shape[1], y.shape[1])
    x, y = (np.pad(z, ((0, 0), (0, width - z.shape[1]))) for z in (x, y))
    rotation, _ = orthogonal_procrustes(y, x)
    return np.arccos((x * (y @ rotation)).sum() / np.linalg.norm(x) / np.linalg.norm(y))


def left_out_errors(x, y, alpha=0.01):
    """Return the squared errors of ridge regression and of the mean for each sample, both fitted to the others.

    The penalty is alpha times the mean squared norm of all samples' centered x.
    """
    x, y = (np.asarray(z, np.float64).reshape(len(z), -1) for z in (x, y))
    penalty = alpha * (centered(x) ** 2).sum() / len(x)
    errors = np.zeros((2, len(x)))
    for i in range(len(x)):
        others = np.arange(len(x)) != i
        x_mean, y_mean = x[others].mean(0), y[others].mean(0)
        a, b = x[others] - x_mean, y[others] - y_mean
        weights = np.linalg.solve(a.T @ a + penalty * np.eye(x.shape[1]), a.T @ b)
        errors[:, i] = [((y[i] - y_mean - guess) ** 2).sum() for guess in ((x[i] - x_mean) @ weights, 0)]
    return errors


def predictivity(x, y, alpha=0.01):
    """Return 1 - sum of the squared errors of ridge regression / those of the mean."""
    ridge, mean = left_out_errors(x, y, alpha).sum(1)
    return 1 - ridge / mean
