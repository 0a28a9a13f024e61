"""CKA straight from the papers, in float64 with explicit loops. Nothing in the package imports this."""

from __future__ import annotations

import numpy as np


def gram(x):
    x = np.asarray(x, dtype=np.float64).reshape(len(x), -1)
    return np.array([[sum(a * b for a, b in zip(p, q, strict=True)) for q in x] for p in x])


def fast_gram(x):
    x = np.asarray(x, dtype=np.float64).reshape(len(x), -1)
    return x @ x.T


def unbiased_hsic(k, ell):
    """Song et al. 2012, eq. 5: zero diagonals, then three terms (computed on centered Gram matrices)."""
    n = len(k)
    h = np.eye(n) - np.ones((n, n)) / n
    k, ell = h @ k @ h, h @ ell @ h
    np.fill_diagonal(k, 0.0)
    np.fill_diagonal(ell, 0.0)
    one = np.ones(n)
    trace = np.trace(k @ ell)
    product = (one @ k @ one) * (one @ ell @ one) / ((n - 1) * (n - 2))
    cross = 2 / (n - 2) * (one @ k @ ell @ one)
    return (trace + product - cross) / (n * (n - 3))


def unbiased_hsic_u_statistic(k, ell):
    """The U-statistic itself: the mean over all ordered 4-tuples of distinct samples (small n only)."""
    n = len(k)
    total, count = 0.0, 0
    for i in range(n):
        for j in range(n):
            for q in range(n):
                for r in range(n):
                    if len({i, j, q, r}) == 4:
                        total += k[i, j] * (ell[i, j] + ell[q, r] - 2 * ell[i, q])
                        count += 1
    return total / count


def biased_hsic(k, ell):
    n = len(k)
    h = np.eye(n) - np.ones((n, n)) / n
    return np.trace(k @ h @ ell @ h) / (n - 1) ** 2


def cka(x, y, hsic=unbiased_hsic, gram=fast_gram):
    # HSIC does not change under translation; without it, the reference itself would lose digits.
    x, y = (np.asarray(z, np.float64).reshape(len(z), -1) for z in (x, y))
    k, ell = gram(x - x.mean(0)), gram(y - y.mean(0))
    return hsic(k, ell) / np.sqrt(hsic(k, k) * hsic(ell, ell))


def minibatch_cka(xs, ys, hsic=unbiased_hsic, weight=lambda n: n * (n - 3)):
    """Ratio of weighted sums over batches; ``xs[b][l]`` are the features of layer l on batch b."""
    matrix = np.zeros((len(xs[0]), len(ys[0])))
    for i in range(matrix.shape[0]):
        for j in range(matrix.shape[1]):
            sums = np.zeros(3)
            for x, y in zip(xs, ys, strict=True):
                a, b = (np.asarray(z, np.float64).reshape(len(z), -1) for z in (x[i], y[j]))
                n = len(a)
                if n < 4:
                    continue
                k, ell = fast_gram(a - a.mean(0)), fast_gram(b - b.mean(0))
                sums += weight(n) * np.array([hsic(k, ell), hsic(k, k), hsic(ell, ell)])
            matrix[i, j] = sums[0] / np.sqrt(sums[1] * sums[2])
    return matrix
