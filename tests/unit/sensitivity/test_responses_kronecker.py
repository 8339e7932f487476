"""Curvature by Kronecker factors: near the matrix they stand for, linear, and refused in words."""

from __future__ import annotations

import sys

import pytest
import torch
from support.close import assert_close
from torch import nn

from sensitivity import DenoisingLoss, Grid, ParameterResponse, Points, Toward, as_score, influence, sample_sensitivity
from sensitivity.responses.kronecker import covered

KINDS = ["kfac", "ekfac"]


def _network():
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.GroupNorm(2, 4), nn.SiLU(), nn.Conv2d(4, 1, 3, padding=1))
    layers = layers.double().requires_grad_(False)
    return layers, as_score(lambda x, sigma: layers(x), "denoiser")


def _linear():
    """One linear layer at one level of constant weight: there A ⊗ B is the Gauss-Newton matrix itself."""
    torch.manual_seed(0)
    layer = nn.Linear(3, 3, bias=False).double()
    data = torch.randn(60, 3, dtype=torch.float64) @ torch.randn(3, 3, dtype=torch.float64)
    loss = DenoisingLoss(draws=64, weighting=torch.ones_like, quantile=torch.ones_like)
    return layer, as_score(lambda x, sigma: layer(x), "denoiser"), data, loss


@pytest.mark.parametrize("kind", KINDS)
def test_factors_of_a_linear_layer_are_its_curvature(kind):
    """Assert the exact direction within the noise of B, sampled at 3 840 pairs."""
    pytest.importorskip("curvlinops", reason="curvlinops-for-pytorch is an optional package")
    layer, score, data, loss = _linear()
    change = Toward(Points(data[:3]))
    exact, near = (
        ParameterResponse(score, loss, data, k, 0.05, module=layer, pairs=None).direction(change)
        for k in ("exact", kind)
    )
    assert float((near - exact).norm() / exact.norm()) < 0.08


@pytest.mark.parametrize("kind", KINDS)
def test_influence_is_the_transpose_of_the_sensitivity(kind):
    """Assert the identity to rounding for a frozen convolutional network, which stays frozen."""
    pytest.importorskip("curvlinops", reason="curvlinops-for-pytorch is an optional package")
    layers, score = _network()
    data, latents = torch.rand(8, 1, 6, 6).double(), 3 * torch.randn(2, 1, 6, 6).double()
    response = ParameterResponse(score, DenoisingLoss(draws=4), data, kind, module=layers)
    options = {"grid": Grid(3.0, 0.3, 3), "response": response}
    changes = [Toward(Points(row[None])) for row in data]
    forward = sample_sensitivity(score, latents, changes, **options)
    influences = influence(score, latents, lambda x: x.flatten(1).square().sum(1), data, **options)
    wanted = (2 * forward.samples * forward.sensitivity).flatten(2).sum(2).T
    assert_close(influences.values, wanted, rtol=0, atol=1e-11 * float(wanted.abs().max()))
    assert not any(p.requires_grad for p in layers.parameters())


def test_linear_and_convolution_layers_are_covered():
    """Assert the names, without normalisation and the insides of attention."""
    layers, score = _network()
    assert covered(layers) == ["0.weight", "0.bias", "3.weight", "3.bias"]
    assert covered(nn.ModuleDict({"a": nn.MultiheadAttention(4, 2), "l": nn.Linear(2, 2)})) == ["l.weight", "l.bias"]
    response = ParameterResponse(score, DenoisingLoss(draws=2), torch.rand(3, 1, 6, 6).double(), "kfac", module=layers)
    assert response.weights.names == ("0.weight", "0.bias", "3.weight", "3.bias")


def test_a_missing_package_is_named(monkeypatch):
    """Assert the sentence of the ImportError."""
    layer, score, data, loss = _linear()
    monkeypatch.setitem(sys.modules, "curvlinops", None)
    with pytest.raises(ImportError, match="install curvlinops-for-pytorch"):
        ParameterResponse(score, loss, data, "ekfac", 0.1, module=layer).direction(Toward(Points(data[:1])))


def test_a_loss_without_residuals_is_refused():
    """Assert that a loss that is no square says what it needs."""
    layer, score, data, loss = _linear()
    with pytest.raises(ValueError, match=r"needs loss\.residual"):
        ParameterResponse(score, lambda *a: loss(*a), data, "kfac", 0.1, module=layer).direction(
            Toward(Points(data[:1]))
        )
