"""Bad input to scores, measures, perturbations, schedules and adapters: one sentence that names it, with the cure."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sensitivity.adapters import _calling, from_azula, from_diffusers, from_edm, from_flow_matching
from sensitivity.densities.network_measure import NetworkMeasure
from sensitivity.measures.classifier import RatioClassifier
from sensitivity.measures.classifier_training import RatioNetwork, train_ratio_classifier
from sensitivity.measures.mixture import Mixture
from sensitivity.measures.points import Points
from sensitivity.perturbations.contamination import Remove, Reweight, Toward
from sensitivity.perturbations.displacement import Move
from sensitivity.scores.schedules import EDM, VE, DiscreteDDPM, RectifiedFlow, VPCosine, VPLinear
from sensitivity.scores.score import as_score, guided

DATA = torch.tensor([[0.0, 1.0], [1.0, 0.0], [2.0, 2.0]])
X = torch.zeros(4, 2)
POINTS = Points(DATA)
LAW = Mixture(None, DATA, 0.5)
NAN = float("nan")
ones = torch.ones


def score(x: Tensor, sigma: Tensor) -> Tensor:
    """Any score."""
    return -x


Case = tuple[Callable[[], Any], type[Exception], str]
CASES: dict[str, Case] = {
    "data that are a list": (lambda: Points([[1.0]]), TypeError, "data is a list.*as_tensor"),
    "data of integers": (lambda: Points(ones(2, 2).long()), TypeError, r"data has dtype torch.int64.*float\(\)"),
    "data without a sample axis": (lambda: Points(ones(3)), ValueError, r"data has shape \(3,\).*\[None\]"),
    "no data": (lambda: Points(ones(0, 2)), ValueError, "data has no rows"),
    "data that are not finite": (
        lambda: Points(DATA * NAN),
        ValueError,
        r"data is not finite, first at index \(0, 0\)",
    ),
    "negative weights": (lambda: Points(DATA, -ones(3)), ValueError, "weights has negative.*Remove"),
    "weights that sum to zero": (lambda: Points(DATA, 0 * ones(3)), ValueError, "weights sums to 0"),
    "weights that are not finite": (lambda: Points(DATA, ones(3) * NAN), ValueError, "weights is not finite"),
    "too few weights": (lambda: Points(DATA, ones(2)), ValueError, r"weights has shape \(2,\).*3 rows"),
    "weights of another dtype": (lambda: Points(DATA, ones(3).double()), TypeError, "weights has dtype.*to"),
    "a negative bandwidth": (lambda: Points(DATA, bandwidth=-1.0), ValueError, "bandwidth = -1.0"),
    "a bandwidth that is none": (lambda: Points(DATA, bandwidth="wide"), TypeError, "bandwidth is a str"),
    "blocks of nothing": (lambda: Points(DATA, block=0), ValueError, "block = 0"),
    "means that are not finite": (lambda: Mixture(None, DATA * NAN, 1.0), ValueError, "means is not finite"),
    "no means": (lambda: Mixture(None, DATA[:0], 1.0), ValueError, "means has no rows"),
    "covariances of another shape": (lambda: Mixture(None, DATA, ones(3, 2, 3)), ValueError, "covariances has shape"),
    "covariances that are not symmetric": (
        lambda: Mixture(None, DATA, torch.tensor([[1.0, 1.0], [0.0, 1.0]]).expand(3, 2, 2)),
        ValueError,
        "not symmetric",
    ),
    "covariances that are not positive": (
        lambda: Mixture(None, DATA, torch.tensor([[1.0, 2.0], [2.0, 1.0]]).expand(3, 2, 2)),
        ValueError,
        r"not positive semi-definite \(smallest eigenvalue -1\)",
    ),
    "negative variances": (lambda: Mixture(None, DATA, -1.0), ValueError, "not positive semi-definite"),
    "covariances of another dtype": (lambda: Mixture(None, DATA, ones(3).double()), TypeError, "covariances has dtype"),
    "covariances that are not finite": (lambda: Mixture(None, DATA, ones(3) * NAN), ValueError, "covariances is not"),
    "states of another shape": (lambda: POINTS.score(ones(4, 3), 1.0), ValueError, r"x has shape \(4, 3\)"),
    "states of another dtype": (lambda: LAW.score(X.double(), 1.0), TypeError, "x has dtype torch.float64.*means"),
    "states on another device": (lambda: POINTS.score(X.to("meta"), 1.0), ValueError, "x is on meta.*move"),
    "a level of zero": (lambda: POINTS.score(X, 0.0), ValueError, "sigma = 0.0 is not a noise level"),
    "a level that is not finite": (lambda: LAW.score(X, NAN), ValueError, "sigma = nan"),
    "a level that is a word": (lambda: LAW.score(X, "low"), TypeError, "sigma is a str"),
    "too many levels": (lambda: LAW.score(X, ones(3)), ValueError, r"sigma has shape \(3,\).*batch 4"),
    "levels on another device": (lambda: LAW.score(X, ones(4).to("meta")), ValueError, "sigma is on meta"),
    "a complex level": (lambda: LAW.score(X, ones(4) * 1j), TypeError, "sigma has dtype"),
    "a tangent of another shape": (lambda: LAW.score_product(X, 1.0, X[:2]), ValueError, "tangent has shape"),
    "a tangent of another dtype": (lambda: POINTS.score_product(X, 1.0, X.double()), TypeError, "tangent has dtype"),
    "a cotangent of another shape": (lambda: POINTS.pairing(X, 1.0, X, ones(4), X[:1]), ValueError, "cotangent has"),
    "a result of another shape": (
        lambda: POINTS.pairing(X, 1.0, X, ones(4), X, out=ones(4, 2)),
        ValueError,
        r"out has shape \(4, 2\)",
    ),
    "toward a tensor": (lambda: Toward(DATA), TypeError, r"measure is a tensor.*Points\(measure\)"),
    "toward a class": (lambda: Toward(Points), TypeError, "measure is a type"),
    "toward a function": (lambda: Toward(score), TypeError, "measure is a function without log_density"),
    "no density": (lambda: Toward(POINTS).source(X, 1.0, X), ValueError, "log_density is missing"),
    "a density for each entry": (lambda: Toward(POINTS).source(X, 1.0, X, X), ValueError, "log_density has shape"),
    "a density that is a number": (lambda: Toward(POINTS).source(X, 1.0, X, 0.0), TypeError, "log_density is a float"),
    "a score of another shape": (lambda: Toward(POINTS).source(X, 1.0, X[:2], ones(4)), ValueError, "score has shape"),
    "an infinite multiple": (lambda: Toward(POINTS) * float("inf"), ValueError, "factor = inf"),
    "a sum with a number": (lambda: Toward(POINTS) + 1, TypeError, "unsupported operand"),
    "a multiple with a word": (lambda: Toward(POINTS) * "2", TypeError, "can't multiply|unsupported operand"),
    "the mass of a sum": (lambda: (Toward(POINTS) + Toward(LAW)).mass(10), ValueError, r"part.mass\(N\)"),
    "the mass of a mixture": (lambda: Toward(LAW).mass(10), ValueError, "Mixture has no number of points.*moved="),
    "a mass among no points": (lambda: Toward(POINTS).mass(0), ValueError, "count = 0"),
    "a mass among half points": (lambda: Toward(POINTS).mass(2.5), TypeError, "count is a float"),
    "removal of everything": (lambda: Remove(POINTS).mass(3), ValueError, "leaves nothing after 3"),
    "reweighting of more than all": (lambda: Reweight(POINTS, 0 * ones(3)).mass(2), ValueError, "fewer than the 3"),
    "moving more than all": (lambda: Move(DATA, DATA).mass(2), ValueError, "fewer than the 3 points moved"),
    "log weights of another shape": (lambda: Reweight(POINTS, ones(2)), ValueError, r"log_weights has shape \(2,\)"),
    "log weights that are a list": (lambda: Reweight(POINTS, [1.0]), TypeError, "log_weights is a list"),
    "log weights that overflow": (lambda: Reweight(POINTS, 1000 * ones(3)), ValueError, "log_weights.*not finite"),
    "log weights that remove all": (lambda: Reweight(POINTS, ones(3) * -float("inf")), ValueError, "total mass of 0.0"),
    "reweighting a network": (
        lambda: Reweight(NetworkMeasure(score, LAW), ones(3)),
        TypeError,
        "measure is a NetworkMeasure",
    ),
    "displacement of another shape": (lambda: Move(DATA, DATA[:2]), ValueError, "displacement has shape"),
    "displacement that is not finite": (lambda: Move(DATA, DATA * NAN), ValueError, "displacement is not finite"),
    "a parametrization unknown": (lambda: as_score(score, "eps"), ValueError, "parametrization = 'eps'.*'noise'"),
    "a network that is none": (lambda: as_score(3), TypeError, "network is a int"),
    "a network of another shape": (
        lambda: as_score(lambda x, s: x[:, :1])(X, ones(())),
        ValueError,
        r"maps shape \(2, 2\) to \(2, 1\)",
    ),
    "a network that returns a tuple": (lambda: as_score(lambda x, s: (x,))(X, 1.0), TypeError, "returns a tuple"),
    "velocity of a table": (
        lambda: as_score(score, "velocity", DiscreteDDPM([0.9, 0.5, 0.1]))(X, 1.0),
        ValueError,
        "parametrization='v'",
    ),
    "guidance by a word": (lambda: guided(score, score, "strong"), TypeError, "weight is a str"),
    "guidance of no score": (lambda: guided(score, None, 1.0), TypeError, "unconditional is a NoneType"),
    "rates that fall": (lambda: VPLinear(20.0, 0.1), ValueError, "beta_min, beta_max = 20.0, 0.1"),
    "an end at pure noise": (lambda: RectifiedFlow(t_max=1.0), ValueError, "t_min, t_max"),
    "a cosine beyond its end": (lambda: VPCosine(t_max=1.2), ValueError, "t_min, t_max"),
    "levels in the wrong order": (lambda: VE(10.0, 1.0), ValueError, "sigma_min, sigma_max = 10.0, 1.0"),
    "a level of zero at the end": (lambda: EDM(0.0), ValueError, "sigma_min, sigma_max"),
    "a table that rises": (lambda: DiscreteDDPM([0.1, 0.5]), ValueError, "alphas_cumprod does not fall"),
    "a table of one": (lambda: DiscreteDDPM([0.5]), ValueError, "alphas_cumprod has shape"),
    "a table that is not finite": (lambda: DiscreteDDPM([0.5, NAN]), ValueError, "alphas_cumprod is not finite"),
    "more steps than times": (lambda: DiscreteDDPM([0.9, 0.5, 0.1]).grid(5), ValueError, "steps = 5 does not fit"),
    "no steps": (lambda: VPLinear().grid(0), ValueError, "steps = 0"),
    "a spacing unknown": (lambda: VPLinear().grid(3, "even"), ValueError, "spacing = 'even'"),
    "a condition for each sample": (lambda: from_edm(score, y=ones(4, 3)), ValueError, r"y has shape \(4, 3\)"),
    "a condition inside a mapping": (lambda: from_edm(score, kw={"y": ones(2)}), ValueError, r"kw\['y'\] has shape"),
    "a protocol unknown": (lambda: from_flow_matching(score, protocol="sde"), ValueError, "protocol = 'sde'"),
    "negative path noise": (lambda: from_flow_matching(score, path_noise=-0.1), ValueError, "path_noise = -0.1"),
    "a flow scheduler that is none": (lambda: from_flow_matching(score, "linear"), TypeError, "scheduler is a str"),
    "an azula denoiser that is none": (lambda: from_azula(score), TypeError, "denoiser is a function"),
    "a diffusers scheduler that is none": (lambda: from_diffusers(score, "ddpm"), TypeError, "scheduler is a str"),
    "an anchor that is none": (lambda: NetworkMeasure(score, None), TypeError, "anchor is a NoneType"),
    "a measure's score that is none": (lambda: NetworkMeasure(1.0, LAW), TypeError, "score is a float"),
    "a prior of one": (lambda: RatioClassifier(score, 1.0), ValueError, "prior = 1.0"),
    "a base unknown": (lambda: RatioClassifier(score, 0.5, "new"), ValueError, "base = 'new'"),
    "logits for each entry": (lambda: RatioClassifier(score).log_density(X, 1.0), ValueError, r"returns \(4, 2\)"),
    "training of a function": (
        lambda: train_ratio_classifier(score, DATA, DATA, sigma_min=0.1, sigma_max=1.0),
        TypeError,
        "not an nn.Module",
    ),
    "training toward other shapes": (
        lambda: train_ratio_classifier(RatioNetwork((2,)), DATA, ones(3, 4), sigma_min=0.1, sigma_max=1.0),
        ValueError,
        "new has shape",
    ),
    "training levels out of order": (
        lambda: train_ratio_classifier(RatioNetwork((2,)), DATA, DATA, sigma_min=1.0, sigma_max=1.0),
        ValueError,
        "sigma_min = 1.0 is not below",
    ),
    "training for no steps": (
        lambda: train_ratio_classifier(RatioNetwork((2,)), DATA, DATA, sigma_min=0.1, sigma_max=1.0, steps=0),
        ValueError,
        "steps = 0",
    ),
}


@pytest.mark.parametrize("case", list(CASES))
def test_bad_input_is_refused_with_one_sentence(case: str) -> None:
    """Assert that the error is of the right kind, names the argument and is one sentence."""
    call, kind, words = CASES[case]
    with pytest.raises(kind, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_schedulers_that_cannot_be_a_score_are_refused() -> None:
    """Assert that schedulers with turned time, continuous time or an unknown prediction are named."""
    diffusers = pytest.importorskip("diffusers")
    for scheduler, words in (
        (diffusers.FlowMatchEulerDiscreteScheduler(invert_sigmas=True), "invert_sigmas"),
        (diffusers.EDMEulerScheduler(), "preconditioned; wrap it .* use from_edm"),
        (diffusers.EulerDiscreteScheduler(timestep_type="continuous", prediction_type="v_prediction"), "from_edm"),
        (diffusers.DDPMScheduler(prediction_type="flow"), "predicts 'flow'"),
    ):
        with pytest.raises(ValueError, match=words):
            from_diffusers(nn.Identity(), scheduler)
    with pytest.raises(TypeError, match="takes no timestep"):
        from_diffusers(nn.Identity(), diffusers.DDPMScheduler())


@pytest.mark.parametrize(
    "call",
    [
        lambda: from_azula(score),
        lambda: from_diffusers(score, "any"),
        lambda: from_flow_matching(score, "any"),
    ],
    ids=["azula", "diffusers", "flow_matching"],
)
def test_missing_packages_name_the_extra(call: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Assert that an adapter whose package is missing says which extra to install."""

    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(_calling.importlib, "import_module", missing)
    with pytest.raises(ImportError, match=r"score-sensitivity\[adapters\]"):
        call()


def test_adapters_import_no_package() -> None:
    """Assert that importing the adapters loads none of the packages they adapt."""
    code = (
        "import sys, sensitivity.adapters\n"
        "names = ('diffusers', 'azula', 'flow_matching', 'pandas', 'matplotlib', 'oracles')\n"
        "print([name for name in names if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_training_that_diverges_is_reported() -> None:
    """Assert that a loss that is not finite is an error, not a classifier."""

    class Broken(RatioNetwork):
        def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
            return super().forward(x, sigma) * NAN

    with pytest.raises(RuntimeError, match="loss is not finite"):
        train_ratio_classifier(Broken((2,), width=4, depth=1), DATA, DATA, sigma_min=0.1, sigma_max=1.0, steps=2)
