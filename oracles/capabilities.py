"""What automatic differentiation can do with each oracle, found by trying one value, argument and library at a time.

A probe moves one argument along a fixed direction, `θ + t θ̇`, and compares `d/dt` of a fixed functional of the value
at t = 0, by reverse and by forward mode of the library, with fourth-order differences of the value in NumPy. Verdicts:

=========== ====================================================================================================
both        reverse and forward mode agree with the differences
reverse     only reverse mode does; forward mode raises an error that explains why
constant    the value is documented as a constant: the library's derivative is zero or none
refused     both modes raise an error that explains why
values      the library has no automatic differentiation
independent the value does not depend on the argument
wrong       anything else; a test watches that no entry says so
=========== ====================================================================================================

`python -m oracles.capabilities` tries everything and stores the table; `stored()` reads it; tests try it again.

Example:
    >>> probe("score", "x", "numpy").verdict
    'values'
    >>> [row.verdict for row in stored() if row[:3] == ("score", "covariances", "torch")]
    ['both']
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from oracles._arrays import Array, namespace
from oracles.empirical import EmpiricalLaw
from oracles.features import FeatureDenoiser, FittedDenoiser
from oracles.mixture import GaussianMixture
from oracles.parameters import ParameterPerturbation
from oracles.perturbation import AdditivePerturbation

LIBRARIES = {"numpy": "numpy", "torch": "torch", "jax": "jax.numpy", "strict": "array_api_strict"}
STEP = 1e-3
AGREEMENT = 1e-6
STORED = "capabilities.json"


@dataclass(frozen=True)
class Setting:
    """A law with what its quantities are evaluated at."""

    law: GaussianMixture
    x: Array
    sigma: Any
    toward: GaussianMixture
    convert: Callable[[Any], Array]


class Row(NamedTuple):
    """One line of the table."""

    quantity: str
    argument: str
    library: str
    verdict: str
    reason: str = ""


_RNG = np.random.default_rng(20250923)
_WEIGHTS, _MEANS = np.array([0.3, 0.7]), np.array([[-0.6, 0.4], [0.8, -0.1]])
_COVARIANCES = np.array([[[0.4, 0.0], [0.0, 0.4]], [[0.5, 0.2], [0.2, 0.3]]])  # repeated eigenvalues first
_X, _U, _V = (
    np.array([[0.3, 0.2], [-0.5, 1.0]]),
    np.array([[0.7, -0.2], [0.1, 0.5]]),
    np.array([[0.2, 0.9], [-1.0, 0.3]]),
)
_LATENTS = 4.0 * _X

QUANTITIES: dict[str, Callable[[Setting], Any]] = {
    "log_density": lambda s: s.law.noised(s.sigma).log_density(s.x),
    "responsibilities": lambda s: s.law.noised(s.sigma).responsibilities(s.x),
    "score": lambda s: s.law.noised(s.sigma).score(s.x),
    "score_jacobian": lambda s: s.law.noised(s.sigma).score_jacobian(s.x),
    "score_jacobian_product": lambda s: s.law.noised(s.sigma).score_jacobian_product(s.x, s.convert(_V)),
    "score_divergence": lambda s: s.law.noised(s.sigma).score_divergence(s.x),
    "third_order": lambda s: s.law.noised(s.sigma).third_order(s.x, s.convert(_U), s.convert(_V)),
    "posterior mean": lambda s: s.law.posterior(s.x, s.sigma)[0],
    "posterior covariance": lambda s: s.law.posterior(s.x, s.sigma)[1],
    "cdf": lambda s: _line(s).cdf(s.x[:, :1]),
    "quantile": lambda s: _line(s).quantile(0.5 + 0.2 * s.x[:, 0]),
    "mean": lambda s: s.law.mean,
    "covariance": lambda s: s.law.covariance,
    "sample": lambda s: s.law.sample(3, seed=0),
    "score_derivative": lambda s: _contaminated(s).score_derivative(s.x, s.sigma, 2, 0.1),
    "parameter score_derivative": lambda s: _moving(s).score_derivative(s.x, s.sigma),
    "sample_sensitivity": lambda s: _contaminated(s).sample_sensitivity(s.convert(_LATENTS) + s.x, 4.0, 0.5)[1],
    "conditioned score": lambda s: _observed(s, s.law.conditioned).noised(s.sigma).score(s.x),
    "log_evidence": lambda s: _observed(s, s.law.log_evidence),
    "feature score": lambda s: _trained(s).score(s.x, s.sigma),
    "feature score_derivative": lambda s: _trained(s).score_derivative(s.x, s.sigma, s.convert(_V), order=2),
    "streamed log_density": lambda s: EmpiricalLaw(s.law.means).noised(s.sigma).log_density(s.x),
    "streamed score": lambda s: EmpiricalLaw(s.law.means).noised(s.sigma).score(s.x),
}


def _line(s: Setting) -> GaussianMixture:
    """The first coordinate's law."""
    first = GaussianMixture(s.law.weights, s.law.means[:, :1], s.law.covariances[:, :1, :1])
    return first.noised(s.sigma)


def _observed(s: Setting, function: Callable[..., Any]) -> Any:
    """A function of an operator, an observation and a noise covariance."""
    return function(s.convert(np.array([[1.0, 0.5]])), s.convert(np.array([0.4])), 0.3)


def _trained(s: Setting) -> FittedDenoiser:
    """A network trained on the means with the weights."""
    network = FeatureDenoiser(s.convert(_COVARIANCES[1] + 1.0), s.convert(_WEIGHTS), 0.1, lambda level: 0.5)
    return network.fit(s.law.means, s.law.weights)


def _contaminated(s: Setting) -> AdditivePerturbation:
    return AdditivePerturbation(s.law, s.toward)


def _moving(s: Setting) -> ParameterPerturbation:
    return ParameterPerturbation(s.law, means=s.convert(_U), covariances=s.convert(np.array([0.1, 0.2])))


def _low_rank(convert: Any, t: Any) -> GaussianMixture:
    factors = convert(_COVARIANCES[:, :, :1]) + t * convert(_U[:, :, None])
    return GaussianMixture.low_rank(convert(_WEIGHTS), convert(_MEANS), factors, 0.3)


def _plain(convert: Any) -> tuple[Array, Array, Array]:
    return convert(_WEIGHTS), convert(_MEANS), convert(_COVARIANCES)


def _setting(convert: Any, law: GaussianMixture, x: Any = None, sigma: Any = 0.6) -> Setting:
    toward = GaussianMixture.isotropic(convert(_WEIGHTS), convert(_MEANS + 0.4), 0.2)
    return Setting(law, convert(_X) if x is None else x, sigma, toward, convert)


_STRETCH = np.array([[[0.1, 0.3], [0.3, -0.2]], [[0.2, -0.1], [-0.1, 0.1]]])

ARGUMENTS: dict[str, Callable[[Any, Any], Setting]] = {
    "x": lambda c, t: _setting(c, GaussianMixture(*_plain(c)), x=c(_X) + t * c(_V)),
    "sigma": lambda c, t: _setting(c, GaussianMixture(*_plain(c)), sigma=t + 0.6),
    "weights": lambda c, t: _setting(
        c, GaussianMixture(c(_WEIGHTS) + t * c(np.array([1.0, -1.0])), c(_MEANS), c(_COVARIANCES))
    ),
    "means": lambda c, t: _setting(c, GaussianMixture(c(_WEIGHTS), c(_MEANS) + t * c(_U), c(_COVARIANCES))),
    "covariances": lambda c, t: _setting(c, GaussianMixture(c(_WEIGHTS), c(_MEANS), c(_COVARIANCES) + t * c(_STRETCH))),
    "variances": lambda c, t: _setting(c, GaussianMixture.diagonal(c(_WEIGHTS), c(_MEANS), c(0.3 + _U**2) + t * c(_V))),
    "factors": lambda c, t: _setting(c, _low_rank(c, t)),
}


def probe(quantity: str, argument: str, library: str) -> Row:
    """Try one entry of the table.

    Raises:
        ValueError: for a quantity, argument or library that the table does not have.
        ImportError: where the library is not installed.
    """
    for name, known in ((quantity, QUANTITIES), (argument, ARGUMENTS), (library, LIBRARIES)):
        if name not in known:
            raise ValueError(f"{name!r} is not in the table; choose from {', '.join(known)}")
    convert = _converter(library)

    def value(t: Any, to: Callable[[Any], Array] = convert) -> Any:
        result = QUANTITIES[quantity](ARGUMENTS[argument](to, t))
        weights = to(np.cos(np.arange(1.0, 1.0 + int(np.prod(result.shape)))))
        return namespace(result).sum(weights * namespace(result).reshape(result, (-1,)))

    slope = _difference(lambda t: float(value(np.asarray(t), np.asarray)))
    verdict, reason = _verdict(value, slope, library, convert)
    return Row(quantity, argument, library, verdict, reason)


def table(libraries: Iterable[str] = tuple(LIBRARIES)) -> list[Row]:
    """Every quantity by every argument in the libraries named."""
    return [probe(q, a, library) for library in libraries for q in QUANTITIES for a in ARGUMENTS]


def markdown(rows: Iterable[Row]) -> str:
    """The rows as one Markdown table, a line for a quantity and library, a column for an argument."""
    cells = {(row.quantity, row.library, row.argument): row.verdict for row in rows}
    lines = list(dict.fromkeys(key[:2] for key in cells))
    arguments = list(dict.fromkeys(key[2] for key in cells))
    head = ["| quantity | library | " + " | ".join(arguments) + " |", "|---|---|" + "---|" * len(arguments)]
    return "\n".join([*head, *(_line_of(cells, *line, arguments) for line in lines)])


def _line_of(cells: dict[tuple[str, str, str], str], quantity: str, library: str, arguments: list[str]) -> str:
    verdicts = (cells.get((quantity, library, argument), "") for argument in arguments)
    return f"| {quantity} | {library} | " + " | ".join(verdicts) + " |"


def _converter(library: str) -> Callable[[Any], Array]:
    xp = importlib.import_module(LIBRARIES[library])
    return lambda array: xp.asarray(np.asarray(array, dtype=np.float64))


def _difference(value: Callable[[float], float]) -> float:
    """The derivative at zero by fourth-order central differences."""
    one, two = (value(h) - value(-h) for h in (STEP, 2 * STEP))
    return (8 * one - two) / (12 * STEP)


def _verdict(value: Callable[[Any], Any], slope: float, library: str, convert: Any) -> tuple[str, str]:
    derivatives: dict[str, float] = {}
    refusals: dict[str, str] = {}
    for mode, derivative in _modes(library):
        try:
            derivatives[mode] = derivative(value, convert(0.0))
        except TypeError as error:
            refusals[mode] = str(error)
    if not derivatives and not refusals:
        value(convert(0.0))
        return "values", ""
    reason = "; ".join(dict.fromkeys(refusals.values()))
    right = [mode for mode, got in derivatives.items() if abs(got - slope) <= AGREEMENT * max(1.0, abs(slope))]
    if abs(slope) <= AGREEMENT and right and len(right) == len(derivatives):
        return "independent", ""
    if right and len(right) == len(derivatives):
        return ("both" if not refusals else right[0]), reason
    if not any(derivatives.values()):
        return ("constant" if derivatives else "refused"), reason
    return "wrong", f"{derivatives} against {slope}"


def _modes(library: str) -> Iterator[tuple[str, Callable[[Any, Any], float]]]:
    """Reverse and forward mode of a library, as derivatives of a function of one number."""
    if library == "torch":
        from torch import func

        yield "reverse", _torch_reverse
        yield "forward", lambda f, t: float(func.jvp(f, (t,), (t + 1.0,))[1])
    if library == "jax":
        import jax

        yield "reverse", lambda f, t: float(jax.grad(f)(t))
        yield "forward", lambda f, t: float(jax.jvp(f, (t,), (t + 1.0,))[1])


def _torch_reverse(function: Callable[[Any], Any], t: Any) -> float:
    """The derivative by torch's tape; zero where the value has none."""
    import torch

    value = function(t.requires_grad_())
    gradient = torch.autograd.grad(value, t, allow_unused=True)[0] if value.requires_grad else None
    return 0.0 if gradient is None else float(gradient)


def stored() -> list[Row]:
    """The table as it was last generated."""
    text = resources.files("oracles").joinpath(STORED).read_text(encoding="utf-8")
    return [Row(*line) for line in json.loads(text)]


def store(rows: Iterable[Row]) -> None:
    """Write the table into the package."""
    lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    Path(__file__).with_name(STORED).write_text(f"[\n{lines}\n]\n", encoding="utf-8")


if __name__ == "__main__":
    import jax

    jax.config.update("jax_enable_x64", True)
    store(table())
