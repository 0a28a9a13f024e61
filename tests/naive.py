"""CKA as the papers define it, in float64 with explicit loops. The package does not import this module."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from itertools import permutations
from statistics import fmean

import numpy as np


def gram(x):
    """Return the linear Gram matrix, entry by entry."""
    x = np.asarray(x, dtype=np.float64).reshape(len(x), -1)
    return np.array([[sum(a * b for a, b in zip(p, q, strict=True)) for q in x] for p in x])


def fast_gram(x):
    """Return the linear Gram matrix as one product."""
    x = np.asarray(x, dtype=np.float64).reshape(len(x), -1)
    return x @ x.T


def unbiased_hsic(k, ell):
    """Return equation 5 of Song et al. 2012: three terms of Gram matrices with zero diagonals.

    The Gram matrices are centered first, which does not change the value and keeps more digits.
    """
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
    """Return the U-statistic: the mean over all ordered 4-tuples of distinct samples. It is slow for large n."""
    k, ell = np.asarray(k).tolist(), np.asarray(ell).tolist()
    return fmean(k[i][j] * (ell[i][j] + ell[q][r] - 2 * ell[i][q]) for i, j, q, r in permutations(range(len(k)), 4))


def biased_hsic(k, ell):
    """Return the biased estimator of Gretton et al. 2005, tr(KHLH) / (n - 1)^2."""
    n = len(k)
    h = np.eye(n) - np.ones((n, n)) / n
    return np.trace(k @ h @ ell @ h) / (n - 1) ** 2


def cka(x, y, hsic=unbiased_hsic, gram=fast_gram):
    """Return CKA of two representations (n, ...)."""
    # HSIC does not change under translation. Without it, this reference would have rounding errors of its own.
    x, y = (np.asarray(z, np.float64).reshape(len(z), -1) for z in (x, y))
    k, ell = gram(x - x.mean(0)), gram(y - y.mean(0))
    return hsic(k, ell) / np.sqrt(hsic(k, k) * hsic(ell, ell))


def minibatch_cka(xs, ys, hsic=unbiased_hsic, weight=lambda n: n * (n - 3)):
    """Return CKA (L, M): weighted sums over batches, then one ratio.

    ``xs[b][l]`` are the features (n, ...) of layer l on batch b, and ``ys[b][m]`` those of layer m of the reference.
    """
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


def squared_distances(x):
    """Return the squared Euclidean distances (n, n)."""
    x = np.asarray(x, np.float64).reshape(len(x), -1)
    return np.array([((p - x) ** 2).sum(1) for p in x])


def rbf_gram(x, threshold=0.5, median=None):
    """Return `gram_rbf` of google-research/representation_similarity; ``median`` sets the median distance."""
    d = squared_distances(x)
    median = np.median(d) if median is None else median
    return np.exp(-d / (2 * threshold**2 * median))


def distance_gram(x):
    """Return the distance kernel, -|x - y|."""
    return -np.sqrt(squared_distances(x))


def bias_corrected_distance_correlation(x, y):
    """Return the bias-corrected distance correlation of Székely and Rizzo 2013, with their modified centering."""

    def modified(d):
        n = len(d)
        rows = d.sum(1, keepdims=True) / (n - 2)
        a = d - rows - rows.T + d.sum() / ((n - 1) * (n - 2))
        np.fill_diagonal(a, 0.0)
        return a

    a, b = (modified(np.sqrt(squared_distances(z))) for z in (x, y))
    return (a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum())


def effective_dimension(x):
    """Return the participation ratio of the covariance, from unbiased estimates of its numerator and denominator.

    Both are means over all ordered 4-tuples of distinct samples.
    """
    d = squared_distances(x).tolist()
    numerator = fmean(d[i][j] * d[q][r] / 4 for i, j, q, r in permutations(range(len(d)), 4))
    k = fast_gram(x)
    return numerator / unbiased_hsic_u_statistic(k, k)


def leave_one_out(xs, ys, hsic=unbiased_hsic, weight=lambda n: n * (n - 3)):
    """Return CKA without each sample in turn, computed from the features that remain."""
    values = []
    for b in range(len(xs)):
        for i in range(len(xs[b])):
            keep = np.arange(len(xs[b])) != i
            less = [[[z[keep] if c == b else z] for c, z in enumerate(zs)] for zs in (xs, ys)]
            values.append(minibatch_cka(*less, hsic, weight)[0, 0])
    return np.array(values)


def jackknife(xs, ys, statistic=minibatch_cka, weight=lambda n: n * (n - 3)):
    """Return a statistic of all batches, its standard error, and the statistic without each batch in turn.

    The statistic is computed again from the features of the batches that remain. The usual jackknife has the number of
    batches k; here it is k_eff = (sum w)^2 / sum w^2, which is the same for batches of equal size.
    """
    kept = [b for b in range(len(xs)) if len(xs[b][0]) >= 4]
    weights = [weight(len(xs[b][0])) for b in kept]
    k_eff = sum(weights) ** 2 / sum(w**2 for w in weights)
    value = np.asarray(statistic(xs, ys))
    left_out = np.array([statistic(xs[:b] + xs[b + 1 :], ys[:b] + ys[b + 1 :]) for b in kept])
    return value, np.sqrt((k_eff - 1) / k_eff * ((left_out - value) ** 2).sum(0)), left_out


def jackknife_over_seeds(matrix):
    """Return the standard error of the mean over all pairs of seeds, by leaving out each seed with all its pairs."""

    def mean_over_pairs(values):
        return np.mean([values[i, j] for i in range(len(values)) for j in range(i)])

    count = len(matrix)
    without = [mean_over_pairs(np.delete(np.delete(matrix, i, 0), i, 1)) for i in range(count)]
    return np.sqrt((count - 1) / count * sum((value - np.mean(without)) ** 2 for value in without))


def knn_vector(x, neighbors=0.1, corrected=True):
    """Return the vector of mutual kNN: for each ordered pair, whether j is among the k nearest others of i."""
    d = squared_distances(x)
    n = len(d)
    k = max(1, round(neighbors * n))
    vector = []
    for i in range(n):
        others = sorted((d[i, j], j) for j in range(n) if j != i)
        nearest = {j for _, j in others[:k]}
        vector += [(j in nearest) - (k / (n - 1) if corrected else 0.0) for j in range(n) if j != i]
    return np.array(vector)


def rsa_vector(x):
    """Return the vector of Spearman RSA: mean ranks of the distances of pairs, by their number, less their mean."""
    d = squared_distances(x)
    n = len(d)
    values = [d[i, j] for i in range(n) for j in range(i + 1, n)]
    ordered = sorted(values)
    ranks = [(bisect_left(ordered, v) + 1 + bisect_right(ordered, v)) / 2 for v in values]
    ranks = np.array(ranks) / len(values)
    return ranks - ranks.mean()


def ridge_gram(x, alpha=0.01):
    """Return the hat matrix of ridge regression on the features, K (K + alpha tr(K)/n I)^-1."""
    x = np.asarray(x, dtype=np.float64).reshape(len(x), -1)
    k = fast_gram(x - x.mean(0))
    return k @ np.linalg.inv(k + alpha * np.trace(k) / len(k) * np.eye(len(k)))


def ridge_vector(x, alpha=0.01):
    """Return the U-centered hat matrix, entry by entry."""
    h = ridge_gram(x, alpha)
    n = len(h)
    np.fill_diagonal(h, 0.0)
    rows = h.sum(1)
    u = [
        [
            0.0 if i == j else h[i, j] - (rows[i] + rows[j]) / (n - 2) + rows.sum() / ((n - 1) * (n - 2))
            for j in range(n)
        ]
        for i in range(n)
    ]
    return np.array(u).ravel()


def minibatch_similarity(xs, ys, vector):
    """Return the cosine (L, M) of vectors that are made of each batch, with sums over batches before dividing."""
    matrix = np.zeros((len(xs[0]), len(ys[0])))
    for i in range(matrix.shape[0]):
        for j in range(matrix.shape[1]):
            pairs = [(vector(x[i]), vector(y[j])) for x, y in zip(xs, ys, strict=True)]
            c, a, b = (sum(float(v @ w) for v, w in each) for each in _three(pairs))
            matrix[i, j] = c / np.sqrt(a * b)
    return matrix


def _three(pairs):
    return pairs, [(v, v) for v, _ in pairs], [(w, w) for _, w in pairs]


def effective_rank(x):
    """Return the exponential of the entropy of the centered features' singular values, divided by their sum."""
    x = np.asarray(x, dtype=np.float64)
    values = np.linalg.svd(x - x.mean(0), compute_uv=False)
    shares = values / values.sum()
    return np.exp(-sum(share * np.log(share) for share in shares if share > 0))
