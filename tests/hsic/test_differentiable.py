"""Gradients of `functional`: against finite differences, where CKA is undefined, and in every mode of torch."""

import gc
import weakref
from contextlib import nullcontext

import pytest
import torch
from lightning_cka import MinibatchCKA
from lightning_cka import functional as F
from lightning_cka.hsic import differentiable, grams
from lightning_cka.hsic.differentiable import differentiable_gram
from lightning_cka.hsic.grams import full_gram
from lightning_cka.hsic.kernels import RBF
from torch.autograd import gradcheck, gradgradcheck


def inverse(squared):
    return 1 / (1 + squared)


def relative(squared):
    return torch.exp(-squared / squared.mean())


KERNELS = ["linear", "rbf", RBF(2.0), "distance", inverse, relative]


def pair(n=6, dtype=torch.float64):
    x, y = torch.randn(n, 3, dtype=dtype), torch.randn(n, 2, 2, dtype=dtype)
    y[:, 0] += x[:, :2]
    return x.requires_grad_(), y.requires_grad_()


@pytest.mark.parametrize("unbiased", [True, False])
@pytest.mark.parametrize("kernel", KERNELS)
def test_gradients_of_cka_are_finite_differences(kernel, unbiased):
    x, y = pair()

    def value(x, y):
        return F.cka(x, y, kernel=kernel, unbiased=unbiased)

    assert gradcheck(value, (x, y))
    assert gradgradcheck(value, (x, y), fast_mode=True)
    assert gradcheck(value, pair(7), fast_mode=True)  # The median of an odd number of entries is one of them.
    for z in (x, y):  # In one argument alone, which is then the only one with a graph.
        other = (y if z is x else x).detach()
        assert gradcheck(lambda z, other=other: value(z, other), (z,), fast_mode=True)
        assert gradcheck(lambda z, other=other: value(other, z), (z,), fast_mode=True)
    assert gradcheck(lambda z: value(z, z.exp()), (x,))


def test_gradients_of_gram_matrices_and_hsic_are_finite_differences():
    x, y = pair()
    assert gradcheck(F.centered_gram, (x,))
    assert gradgradcheck(F.centered_gram, (x,))
    for hsic in (F.unbiased_hsic, F.biased_hsic):
        assert gradcheck(lambda x, y, hsic=hsic: hsic(F.centered_gram(x), F.centered_gram(y)), (x, y))
    grams = [(z.detach().flatten(1) @ z.detach().flatten(1).T).requires_grad_() for z in (x, y)]
    for function in (F.unbiased_hsic, F.biased_hsic, lambda k, ell: F.cka(k, ell, kernel="precomputed")):
        assert gradcheck(function, grams)


@pytest.mark.parametrize("shape", [(9, 4), (9, 3, 2, 2), (9,)])
@pytest.mark.parametrize("mean", [0.0, 1e6])
def test_values_are_those_without_a_graph(shape, mean):
    features = torch.randn(shape) + mean
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        plain = features.clamp(max=6e4).to(dtype) if dtype == torch.float16 else features.to(dtype)
        recorded = plain.clone().requires_grad_()
        expected, scale = full_gram(plain)
        gram, same = differentiable_gram(recorded)
        assert gram.dtype == expected.dtype
        assert (scale == 0) == (same == 0)
        if scale != 0:
            tolerance = 1e-5 if gram.dtype == torch.float32 else 1e-12
            assert torch.allclose(
                gram * same**2, expected * scale**2, rtol=tolerance, atol=tolerance * float(expected.trace() * scale**2)
            )
        for kernel in KERNELS:
            values = [F.cka(z, torch.arange(9.0), kernel=kernel) for z in (plain, recorded)]
            assert torch.allclose(*values, atol=1e-6, equal_nan=True)
            assert values[1].requires_grad
            assert not values[0].requires_grad


UNDEFINED = {
    "constant": torch.full((8, 3), 0.1),
    "zeros": torch.zeros(8, 3),
    "mostly equal": torch.cat([torch.zeros(7, 3), torch.ones(1, 3)]),
    "equidistant": torch.eye(8),
    "random": torch.randn(8, 3),
    "copies": torch.randn(4, 3).repeat(2, 1),
}


@pytest.mark.filterwarnings("ignore:Anomaly Detection")
@pytest.mark.parametrize("kernel", ["linear", "rbf", "distance", inverse])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_where_cka_is_nan_the_gradient_is_zero(kernel, dtype):
    """Under anomaly mode, which raises at any nan inside the graph."""
    y = torch.randn(8, 4).requires_grad_()
    undefined = set()
    with torch.autograd.detect_anomaly(check_nan=True):
        for name, features in UNDEFINED.items():
            x = features.to(dtype).requires_grad_()
            for unbiased in (True, False):
                for one, other in ((x, y), (y, x), (x, x)):
                    value = F.cka(one, other, kernel=kernel, unbiased=unbiased)
                    gradients = torch.autograd.grad(value, [x, y], allow_unused=True, materialize_grads=True)
                    assert all(gradient.isfinite().all() for gradient in gradients)
                    if value.isnan():
                        undefined.add(name)
                        assert not any(gradient.any() for gradient in gradients)
                    elif one is not other:
                        assert all(gradient.any() for gradient in gradients)
    assert {"constant", "zeros"} <= undefined
    assert not undefined & {"random", "copies"}


def test_the_gradient_of_a_gram_matrix_of_constant_features_is_zero():
    x = torch.full((8, 3), 0.1, requires_grad=True)
    F.centered_gram(x).square().sum().backward()
    assert not x.grad.any()


def test_a_kernel_with_an_infinite_slope_at_zero_has_finite_gradients():
    x, y = torch.randn(8, 3, requires_grad=True), torch.randn(8, 2)
    gradients = [torch.autograd.grad(F.cka(x, y, kernel=k), x)[0] for k in ("distance", lambda d: -d.sqrt())]
    assert torch.allclose(*gradients)


@pytest.mark.parametrize("kernel", KERNELS)
def test_float32_gradients_are_those_of_float64_also_of_shifted_and_large_features(kernel):
    x, y = (z.detach() for z in pair(32))
    if kernel is not inverse:  # Its bandwidth is fixed.
        x, y = 1e-4 * x + 3, 1e5 * y
    gradients = []
    for dtype in (torch.float64, torch.float32):
        a, b = x.float().to(dtype).requires_grad_(), y.float().to(dtype).requires_grad_()
        F.cka(a, b, kernel=kernel).backward()
        gradients.append([a.grad.double(), b.grad.double()])
    for exact, found in zip(*gradients, strict=True):
        assert (found - exact).norm() < 1e-4 * exact.norm()


def test_far_samples_have_the_gradients_of_float64():
    x, y = (z.detach().float() for z in pair(40))
    x[5], x[20] = x[5] + 3e4, x[20] - 1.5e4
    for kernel in ("rbf", "distance", inverse):
        gradients = []
        for dtype in (torch.float64, torch.float32):
            a = x.clone().to(dtype).requires_grad_()
            F.cka(a, y, kernel=kernel).backward()
            gradients.append(a.grad.double())
        assert (gradients[0] - gradients[1]).norm() < 1e-4 * gradients[0].norm()


@pytest.mark.parametrize("kernel", KERNELS)
def test_autocast_changes_neither_values_nor_gradients(kernel):
    x, y = pair(16, torch.float32)
    plain = F.cka(x, y, kernel=kernel)
    expected = torch.autograd.grad(plain, (x, y))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = F.cka(x, y, kernel=kernel)
        found = torch.autograd.grad(value, (x, y))
    assert torch.equal(value, plain)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


@pytest.mark.parametrize("kernel", KERNELS)
def test_an_accelerator_never_waits(kernel, monkeypatch):
    """Tensors on the meta device have no values, so that any branch on one would raise."""
    for module in (grams, differentiable):  # That device has no autocast.
        monkeypatch.setattr(module, "full_precision", lambda device_type: nullcontext())
    x, y = torch.randn(8, 3, device="meta", requires_grad=True), torch.randn(8, 3, device="meta")
    F.cka(x, y, kernel=kernel).backward()
    F.centered_gram(x).sum().backward()
    assert x.grad.shape == x.shape
    assert F.cka(y, y, kernel=kernel).shape == ()


def test_a_teacher_may_run_in_inference_mode():
    with torch.inference_mode():
        teacher = torch.randn(8, 3)
        gram = teacher @ teacher.T
        assert not F.cka(teacher, teacher).isnan()
    student = torch.randn(8, 5, requires_grad=True)
    for kernel in KERNELS:
        F.cka(student, teacher, kernel=kernel).backward()
        F.cka(teacher, student, kernel=kernel).backward()
        assert not F.cka(teacher, teacher, kernel=kernel).requires_grad
    F.cka(F.centered_gram(student), gram, kernel="precomputed").backward()
    F.unbiased_hsic(F.centered_gram(student), gram).backward()
    assert student.grad.any()


def test_without_grad_mode_nothing_is_recorded():
    x, y = pair()
    with torch.no_grad():
        for kernel in KERNELS:
            assert not F.cka(x, y, kernel=kernel).requires_grad
        assert not F.centered_gram(x).requires_grad


@pytest.mark.parametrize("kernel", [*KERNELS, "precomputed"])
def test_a_metric_keeps_no_graph(kernel):
    metric = MinibatchCKA(1, kernel=kernel)
    x, y = pair(8)
    if kernel == "precomputed":
        x, y = x @ x.T, y.flatten(1) @ y.flatten(1).T
    else:
        x, y = x * 1, y * 1
    graph = weakref.ref(x)
    metric.update([x], [y])
    metric([x], [y])
    assert not any(state.requires_grad for state in metric.metric_state.values())
    assert not metric.compute().requires_grad
    del x, y
    gc.collect()
    assert graph() is None  # The saved tensors of a graph would hold it.


def test_cka_as_a_loss_aligns_two_representations():
    """Positive control: a rotation and a scale are free, so that CKA reaches 1."""
    generator = torch.Generator().manual_seed(0)
    target = torch.randn(32, 4, generator=generator)
    for kernel in ("linear", "rbf", "distance"):
        x = (target[:, [2, 0, 3, 1]] + 2 * torch.randn(32, 4, generator=generator)).requires_grad_()
        optimizer = torch.optim.Adam([x], 0.05)
        assert F.cka(x, target, kernel=kernel) < 0.5
        for _ in range(300):
            optimizer.zero_grad()
            (1 - F.cka(x, target, kernel=kernel)).backward()
            optimizer.step()
        assert F.cka(x, target, kernel=kernel) > 0.95
