"""Classical MDS and Procrustes rotations against NumPy in float64, straight from the definitions."""

import naive
import numpy as np
import pytest
import torch
from lightning_cka.hsic.classical_mds import classical_mds, procrustes_rotation


def naive_mds(gram, k):
    """Coordinates and shares of variance: center entry by entry, then eigenvectors times roots of eigenvalues."""
    gram = np.asarray(gram, dtype=np.float64)
    n = len(gram)
    centered = [
        [gram[i, j] - gram[i].sum() / n - gram[:, j].sum() / n + gram.sum() / n**2 for j in range(n)] for i in range(n)
    ]
    values, vectors = np.linalg.eigh(np.array(centered))
    order = np.argsort(-values)[:k]
    coordinates = vectors[:, order] * np.sqrt(values[order])
    for column in coordinates.T:
        column *= np.sign(column[np.argmax(np.abs(column))])
    return coordinates, values[order] / sum(values)


@pytest.mark.parametrize("k", [1, 2, 5])
def test_classical_mds_matches_naive(k):
    x = torch.randn(12, 7, dtype=torch.float64) * torch.arange(1, 8) + 3
    found = classical_mds(torch.from_numpy(naive.gram(x.numpy())), k)
    coordinates, shares = naive_mds(naive.gram(x.numpy()), k)
    assert np.allclose(found.coordinates, coordinates, atol=1e-10)
    assert np.allclose(found.shares, shares, atol=1e-12)


def test_all_coordinates_have_the_distances_and_the_trace():
    x = torch.randn(9, 4, dtype=torch.float64)
    found = classical_mds(x @ x.T, 4)
    assert torch.allclose(torch.cdist(found.coordinates, found.coordinates), torch.cdist(x, x), atol=1e-7)
    assert found.shares.sum() == pytest.approx(1)
    variance = (x - x.mean(0)).square().sum()
    assert torch.allclose(found.coordinates.square().sum(0) / variance, found.shares)


def test_signs_do_not_depend_on_rounding():
    """Two samples are equally far out on both sides: the first of them decides."""
    x = torch.tensor([[-3.0, 0], [3, 0], [1, 1], [-1, -1], [0, 0.5], [0, -0.5]], dtype=torch.float64)
    for seed in range(20):
        noise = 1e-13 * torch.randn(6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        found = classical_mds(x @ x.T + noise + noise.T)
        assert (found.coordinates[0, 0] > 0) & (found.coordinates[1, 0] < 0)


def test_float32_matrices_with_fewer_directions_than_axes():
    x = torch.arange(8.0)[:, None]
    found = classical_mds(x @ x.T, 3)
    assert found.coordinates.dtype == torch.float64
    assert torch.allclose(found.coordinates[:, 0].abs(), (x[:, 0] - 3.5).abs().double(), atol=1e-5)
    assert found.coordinates[:, 1:].abs().max() < 1e-2
    assert torch.allclose(found.shares, torch.tensor([1.0, 0, 0], dtype=torch.float64), atol=1e-6)


def test_matrices_without_an_embedding_raise():
    with pytest.raises(ValueError, match="the features do not vary"):
        classical_mds(torch.full((6, 6), 2.0))
    with pytest.raises(ValueError, match="some entries of the Gram matrix are nan or infinite"):
        classical_mds(torch.eye(6) * torch.tensor([1, 1, 1, 1, 1, torch.nan]))
    with pytest.raises(ValueError, match=r"expected a square Gram matrix and k from 1 to its size 6, but got .*k=7"):
        classical_mds(torch.eye(6), 7)
    with pytest.raises(ValueError, match="expected a square Gram matrix"):
        classical_mds(torch.ones(3, 6))


def test_the_procrustes_rotation_is_the_best_of_all():
    generator = torch.Generator().manual_seed(0)
    moving, fixed = torch.randn(2, 10, 2, dtype=torch.float64, generator=generator)
    best = procrustes_rotation(moving, fixed)
    assert torch.allclose(best @ best.T, torch.eye(2, dtype=torch.float64))
    least = (moving @ best - fixed).square().sum()
    for angle in torch.linspace(0, 2 * torch.pi, 721, dtype=torch.float64)[:-1]:
        c, s = angle.cos(), angle.sin()
        for other in (torch.stack([c, -s, s, c]), torch.stack([c, s, s, -c])):
            assert (moving @ other.view(2, 2) - fixed).square().sum() >= least - 1e-12


@pytest.mark.parametrize("is_flipped", [False, True])
def test_the_procrustes_rotation_undoes_rotations_and_flips(is_flipped):
    fixed = torch.randn(10, 3, dtype=torch.float64)
    turn = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64)).Q
    if is_flipped:
        turn[:, 0] *= -1
    moving = 4 * fixed @ turn
    assert torch.allclose(moving @ procrustes_rotation(moving, fixed), 4 * fixed)
