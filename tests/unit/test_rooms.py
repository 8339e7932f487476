"""The house keeps its rooms apart, imports stay light, and the public surface is what was promised."""

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import oracles
import sensitivity
import studies
from studies.running.imports import packages

ROOT = Path(oracles.__file__).resolve().parent.parent
FORBIDDEN = {"oracles": {"sensitivity", "studies"}, "sensitivity": {"oracles", "studies"}}


@pytest.mark.parametrize("room", FORBIDDEN)
def test_truth_and_engine_never_import_each_other(room):
    """Assert that no module of a room imports a room that it must not."""
    modules = (ROOT / room).rglob("*.py")
    assert not [str(path) for path in modules if packages(path.read_text(encoding="utf-8")) & FORBIDDEN[room]]


def test_the_import_rule_sees_a_planted_import():
    """Assert that imports inside functions are seen."""
    assert packages("def f():\n    from sensitivity.grid import Grid\n") == {"sensitivity"}


@pytest.mark.parametrize(
    ("package", "heavy"),
    [
        ("oracles", ["torch", "jax"]),
        ("sensitivity", ["pandas", "distributed", "matplotlib", "safetensors", "pyarrow"]),
        ("studies", ["torch"]),
    ],
)
def test_importing_a_room_is_light(package, heavy):
    """Assert that a fresh interpreter loads none of the heavy packages with it."""
    code = f"import sys, {package}; print([m for m in {heavy!r} if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert run.stdout.strip() == "[]"


PARAMETERS = {
    "oracles.GaussianMixture": "weights means covariances",
    "oracles.GaussianMixture.isotropic": "weights means variances",
    "oracles.GaussianMixture.diagonal": "weights means variances",
    "oracles.GaussianMixture.low_rank": "weights means factors variances",
    "oracles.GaussianMixture.empirical": "points weights",
    "oracles.GaussianMixture.noised": "self sigma alpha",
    "oracles.GaussianMixture.posterior": "self x sigma",
    "oracles.GaussianMixture.sample": "self n seed",
    "oracles.GaussianMixture.conditioned": "self operator observation noise_covariance",
    "oracles.features.FeatureDenoiser": "frequencies phases ridge skip",
    "oracles.features.FeatureDenoiser.fit": "self points weights",
    "oracles.AdditivePerturbation": "base toward",
    "oracles.AdditivePerturbation.score_derivative": "self x sigma order eta",
    "oracles.AdditivePerturbation.sample_sensitivity": "self latents sigma_max sigma_min order",
    "oracles.AdditivePerturbation.sample": "self latents eta sigma_max sigma_min",
    "sensitivity.as_score": "network parametrization schedule",
    "sensitivity.guided": "conditional unconditional weight",
    "sensitivity.Points": "data weights bandwidth",
    "sensitivity.Mixture": "weights means covariances",
    "sensitivity.Toward": "measure",
    "sensitivity.Remove": "measure",
    "sensitivity.Reweight": "measure log_weights",
    "sensitivity.Move": "points displacement",
    "sensitivity.Grid": "sigma_max sigma_min steps spacing",
    "sensitivity.GaussianAnchor": "mean covariance rank",
    "sensitivity.log_density": "score x sigma",
    "sensitivity.score_derivative": "score x sigma perturbation",
    "sensitivity.sample_sensitivity": "score latents perturbation grid",
    "sensitivity.influence": "score latents functional points grid",
    "sensitivity.record": "score latents functionals grid",
    "sensitivity.Recording.influence": "self points top_k groups client",
    "sensitivity.Recording.save": "self path",
    "sensitivity.Recording.load": "path",
    "sensitivity.gallery": "influence data path",
    "sensitivity.resample": "score latents perturbation eta grid",
    "sensitivity.counterfactual": "score latents groups grid",
    "studies.verify": "estimator task",
}
ROOMS = {"oracles": oracles, "sensitivity": sensitivity, "studies": studies}


def find(path: str):
    """The object of a dotted public name."""
    room, *rest = path.split(".")
    value = ROOMS[room]
    for name in rest:
        value = getattr(value, name)
    return value


@pytest.mark.parametrize("path", PARAMETERS)
def test_public_parameters_keep_their_names_and_order(path):
    """Assert the frozen signature: the positional parameters as promised, every further one keyword-only."""
    parameters = [p for p in inspect.signature(find(path)).parameters.values() if p.kind is not p.KEYWORD_ONLY]
    assert [p.name for p in parameters] == PARAMETERS[path].split()


def test_public_names_exist():
    """Assert that each room exports what it promises."""
    for room in (oracles, sensitivity):
        for name in room.__all__:
            assert getattr(room, name) is not None
    names = (
        "from_diffusers from_azula from_edm from_flow_matching NetworkMeasure RatioClassifier log_density_ratio Outcome"
    )
    assert set(names.split()) <= set(sensitivity.__all__)
    for module in ("symbolic", "reference", "transport"):
        assert getattr(oracles, module).__doc__
