"""Products with the Jacobian of a score.

Symbols: `s(x, σ)` the score at states `x` of shape `(batch, *shape)`, `J = ∇s` its Jacobian per sample,
`t_k` tangents and `u_k` cotangents of shape `(K, batch, *shape)`.

==============  =====================================  ==============================================
method          J t                                    needs
==============  =====================================  ==============================================
`"forward"`     forward mode                           a forward-mode rule for every operation
`"double-vjp"`  derivative in u of u ↦ (Jᵀu)·t         twice differentiable in reverse mode
`"reverse"`     none, only Jᵀu                         once differentiable in reverse mode
`"finite"`      central differences (not exact)        nothing
`"one-sided"`   forward differences (not exact)        once differentiable in reverse mode
==============  =====================================  ==============================================

`Jᵀu` is always taken in reverse mode. The method and the cures below are chosen once, by a trial on two samples at
several levels (`sensitivity.jacobians.trial.choose`), never inside a loop:

- forward mode by rules of our own (`sensitivity.jacobians.duals`), which carry value and tangents through the
  network in one batch: tried first, since it is the quickest exact method;
- torch's own forward mode where those rules do not reach, with three cures: fused attention has no forward mode, so
  that the mathematically equal composite kernel takes its place; group normalisation has none for non-contiguous
  inputs, which are made contiguous; directions are taken one after the other where an operation has no batching rule;
- a network that cuts the derivative (`detach`, `no_grad`, a hand-written rule that is wrong) disagrees with
  differences of its own values, and falls to the next method; where `Jᵀu` is needed there is none, which is an error.

Central differences use the step `h = (ε |x| σ²)^{1/3}` along each direction, which balances the rounding error
`ε|x|/h` (ε the unit roundoff) against the truncation `(h/σ)²`. Forward differences, with `h = (ε |x| σ)^{1/2}`,
have the larger truncation `h/σ` and cost one network evaluation a direction. The method "one-sided" takes them for
tangents only: the quadratic forms `v·Jv` of a divergence, whose errors a log density would accumulate, are exact by
reverse mode. It is never chosen unasked.

"auto" takes the first method that works, in a fixed order, so that equal calls give equal bits: "reverse" where only
`v·Jv` and `Jᵀu` are asked for, else "forward" by own rules unless most operations of the network have none, then
"forward" by torch's, "double-vjp", "finite". That order is one of measured cost: for one or two tangents own rules took
a third to three fifths of the time of torch's forward mode on perceptrons, convolutional networks and transformers, for
sixteen between that and the same, and double-VJP was never clearly quicker. "fastest" times the exact ones
that work (on up to 16 of the states) and takes the quickest; two runs may then differ in their last digits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.func import jvp, vjp, vmap
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from sensitivity._callables import evaluate
from sensitivity._checks import check_count, per_sample, transformed
from sensitivity.jacobians.differences import Score, differences, norms, step_length
from sensitivity.jacobians.dual_layers import push
from sensitivity.jacobians.duals import alone
from sensitivity.jacobians.kept import Graph, Graphs

METHODS = ("auto", "fastest", "forward", "double-vjp", "reverse", "finite", "one-sided")
DIFFERENCES = ("finite", "one-sided")
_NUMBERS, _ROWS = 1 << 18, 64
"""On a processor a call takes directions of so many numbers in all, or so many rows where that is more: what a network
makes of them then stays near its cache, in a third to a half of the time of all d directions of an image at once."""
_POWERS = (2.0**-120, 2.0**120)  # powers of two whose inverses single precision has too


@dataclass(frozen=True)
class Products:
    """Values, tangent and cotangent products of one score, by one method for a whole run.

    `exact` is False for finite differences, whose relative error on the trial sample is `error`. `chunk_size`
    bounds the number of directions in one network call. With `differentiable=False` nothing is recorded for an
    outer backward pass. `graphs` collects the graphs of the method "reverse" for a run that comes back to them.
    `off_flow` is how much of the score's work off its flow is unsure (see `sensitivity.jacobians.asymmetry`).

    Example:
        >>> products = Products(lambda x, sigma: -x / (1 + sigma**2), "forward")
        >>> x, sigma = torch.ones(2, 3, dtype=torch.float64), torch.tensor(1.0, dtype=torch.float64)
        >>> score, product = products.jvp(x, sigma, torch.ones(4, 2, 3, dtype=torch.float64))
        >>> product.shape, float(product[0, 0, 0])
        (torch.Size([4, 2, 3]), -0.5)
    """

    score: Score
    method: str = "auto"
    differentiable: bool = False
    chunk_size: int | None = None
    cures: tuple[str, ...] = ()
    error: float = 0.0
    message: str = ""
    graphs: Graphs | None = None
    off_flow: float = 0.0

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"products method {self.method!r} is unknown: choose one of {', '.join(METHODS)}.")
        check_count(self.chunk_size, "chunk_size", 0)
        if self.chunk_size is not None and self.chunk_size < 1:
            raise ValueError(f"chunk_size={self.chunk_size} directions cannot be computed: give at least 1, or None.")

    @property
    def exact(self) -> bool:
        return self.method not in DIFFERENCES

    @property
    def undecided(self) -> bool:
        """Whether a trial has still to choose the method."""
        return self.method in ("auto", "fastest")

    def value(self, x: Tensor, sigma: Tensor) -> Tensor:
        """`s(x, σ)`."""
        with self._context():
            if self._keeping():
                return self._kept(x, sigma).value.detach()
            return self._at(sigma)(x)

    def jvp(self, x: Tensor, sigma: Tensor, tangents: Tensor) -> tuple[Tensor, Tensor]:
        """`(s, J t_k)` for tangents of shape `(K, batch, *shape)`."""
        with self._context():
            return self._chunked(_TANGENT[self._decided("jvp")], x, sigma, tangents)

    def vjp(self, x: Tensor, sigma: Tensor, cotangents: Tensor) -> tuple[Tensor, Tensor]:
        """`(s, Jᵀ u_k)` for cotangents of shape `(K, batch, *shape)`."""
        with self._context():
            return self._chunked(_reverse, x, sigma, cotangents)

    def quadratic(self, x: Tensor, sigma: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        """`(s, J v_k or Jᵀ v_k)`, whichever this method takes in one pass: both give the same `v·Jv`."""
        reverse = self.method in ("reverse", "one-sided")
        return self.vjp(x, sigma, directions) if reverse else self.jvp(x, sigma, directions)

    def forms_and_tangents(
        self, x: Tensor, sigma: Tensor, directions: Tensor, tangents: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """`(s, J v_k or Jᵀ v_k, J t_k)`: quadratic forms and tangents, in one call where that is cheapest."""
        if self.method != "one-sided":
            value, images = self.jvp(x, sigma, torch.cat([directions, tangents]))
            return value, images[: len(directions)], images[len(directions) :]
        value, images = self.vjp(x, sigma, directions)
        with self._context():
            return value, images, _ahead(self, x, sigma, tangents, value)

    def second(self, x: Tensor, sigma: Tensor, tangent: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """`(s, J t, D²s[t, t])` for one tangent of shape `(batch, *shape)`."""
        with self._context():
            return _SECOND[self._decided("second")](self, x, sigma, tangent)

    @property
    def name(self) -> str:
        """The method with its cures, such as `"forward (rules)"`."""
        return f"{self.method} ({', '.join(self.cures)})" if self.cures else self.method

    def _decided(self, call: str) -> str:
        if self.undecided:
            raise ValueError(
                f'Products(method="{self.method}").{call} has no method yet: call '
                "sensitivity.jacobians.trial.choose(products, x, sigma) once and use its result."
            )
        if self.method == "reverse":
            raise ValueError(
                f'method="reverse" has only products with the transposed Jacobian, and {call} needs J t: '
                'use "forward", "double-vjp" or "finite".'
            )
        return self.method

    def _keeping(self) -> bool:
        """Whether a run keeps the graph of what is evaluated now."""
        kept = self.graphs is not None and self.graphs.stage is not None
        return kept and self.method == "reverse" and not (self.differentiable or transformed())

    def _kept(self, x: Tensor, sigma: Tensor) -> Graph:
        """The score with its graph, which the run keeps if it wants to."""
        with torch.enable_grad():
            # A leaf of its own: the graph begins here, whatever the state was made of.
            state = x.detach().requires_grad_()
            graph = Graph(self.score, state, self._at(sigma)(state))
        if self._keeping() and graph.value.requires_grad:
            self.graphs.stage.append(graph)  # type: ignore[union-attr]  # both are there where graphs are kept
        return graph

    def _at(self, sigma: Tensor) -> Callable[[Tensor], Tensor]:
        # Under autocast a network may answer in another dtype than its state has.
        return lambda y: evaluate(self.score, y, sigma)

    def _map(self, function: Callable[[Tensor], Any], directions: Tensor) -> Any:
        """`function` of each direction; one batched call unless the trial found that impossible."""
        if directions.shape[0] == 1:
            return tree_map(lambda leaf: leaf[None], function(directions[0]))
        if "serial" in self.cures:
            return tree_map(lambda *leaves: torch.stack(leaves), *(function(direction) for direction in directions))
        return vmap(function)(directions)

    def _chunked(self, route: Any, x: Tensor, sigma: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        size = self.chunk_size or _fitting(directions)
        if directions.shape[0] <= size:
            return route(self, x, sigma, directions)
        parts = [route(self, x, sigma, part) for part in directions.split(size)]
        return parts[0][0], torch.cat([product for _, product in parts])

    def _context(self) -> AbstractContextManager[object]:
        recording: AbstractContextManager[object] = nullcontext() if self.differentiable else torch.no_grad()
        return self._cured(recording) if self.cures else recording

    @contextmanager
    def _cured(self, recording: AbstractContextManager[object]) -> Iterator[None]:
        with ExitStack() as stack:
            stack.enter_context(recording)
            if "math" in self.cures:
                stack.enter_context(sdpa_kernel(SDPBackend.MATH))
            if "contiguous" in self.cures:
                stack.enter_context(_ContiguousGroupNorm())
            yield


def _fitting(directions: Tensor) -> int:
    """How many directions (K, batch, *shape) to take at once, in parts of about equal size."""
    count, numbers = directions.shape[0], directions.numel()
    if numbers <= _NUMBERS or directions.device.type != "cpu":
        return count
    each = max(numbers // count, 1)
    most = max(_NUMBERS // each, _ROWS // max(directions.shape[1], 1), 1)
    return -(-count // -(-count // most))


class _ContiguousGroupNorm(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (functional.group_norm, torch.group_norm) and args:
            args = (args[0].contiguous(), *args[1:])
        return func(*args, **(kwargs or {}))


def _forward(products: Products, x: Tensor, sigma: Tensor, tangents: Tensor) -> tuple[Tensor, Tensor]:
    score = products._at(sigma)
    if "rules" in products.cures and not torch.compiler.is_compiling():  # the compiler has its own fused derivatives
        unit, powers = _units(tangents)
        value, moved = push(score, x, unit)
        return value, moved * powers
    states = alone(x)
    value, product = products._map(lambda tangent: _pushed(score, states, tangent), tangents)
    return value[0], product


def _units(tangents: Tensor) -> tuple[Tensor, Tensor]:
    """Tangents of size about 1, and the powers of two, (K, batch, 1, …), that they were divided by.

    Such a scaling changes no bit. It keeps a tangent of 10⁻⁴⁰, the size of a small density ratio, from making a network
    compute with subnormal numbers, which takes a processor some five times as long.
    """
    with torch.no_grad():
        size = tangents.detach().abs().flatten(2).amax(2)
        # A number over its mantissa is the power of two itself, exactly. It is a constant to derivatives, from which it
        # cancels.
        mantissa = torch.frexp(size).mantissa
        known = torch.isfinite(size) & (size > 0)
        power = torch.where(known, size / torch.where(known, mantissa, 1.0), 1.0)
        power = power.clamp(*_POWERS).to(tangents.dtype).reshape(*size.shape, *[1] * (tangents.dim() - 2))
    return tangents / power, power


def _pushed(function: Callable[[Tensor], Any], x: Tensor, tangent: Tensor) -> tuple[Any, Any]:
    pair: Any = jvp(function, (x,), (tangent,))
    return pair


def _reverse(products: Products, x: Tensor, sigma: Tensor, cotangents: Tensor) -> tuple[Tensor, Tensor]:
    if not (products.differentiable or transformed()):
        return _backward(products, x, sigma, cotangents)
    value, pullback = _pulled(products._at(sigma), x)
    return value, products._map(pullback, cotangents)


def _backward(products: Products, x: Tensor, sigma: Tensor, cotangents: Tensor) -> tuple[Tensor, Tensor]:
    """The same on the ordinary graph, which no transform wraps: a fifth less time on a small network."""
    graph = products._kept(x, sigma)
    if not graph.value.requires_grad:
        raise ValueError(
            "score has no graph from its states to its values, so that Jᵀu is unknown: compute it with torch, outside "
            "no_grad and inference_mode, without detach or NumPy."
        )
    images = graph.pull(cotangents, serial="serial" in products.cures, retain=products._keeping())
    return graph.value.detach(), images


def _double(products: Products, x: Tensor, sigma: Tensor, tangents: Tensor) -> tuple[Tensor, Tensor]:
    value, forward = linearised(products._at(sigma), x)
    return value, products._map(forward, tangents)


def _pulled(function: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    pair: Any = vjp(function, x)
    return pair[0], lambda cotangent: pair[1](cotangent)[0]


def linearised(function: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """`function(x)` and its forward derivative, taken as the derivative of the reverse one."""
    # u ↦ Jᵀu is linear, so that its transposed derivative is J wherever it is taken, at u = 0 as well.
    value, pullback = _pulled(function, x)
    return value, _pulled(pullback, torch.zeros_like(value))[1]


def _finite(products: Products, x: Tensor, sigma: Tensor, tangents: Tensor) -> tuple[Tensor, Tensor]:
    return differences(products.score, x, sigma, tangents, step_length(x, sigma) / norms(tangents))


def _one_sided(products: Products, x: Tensor, sigma: Tensor, tangents: Tensor) -> tuple[Tensor, Tensor]:
    value = products._at(sigma)(x)
    return value, _ahead(products, x, sigma, tangents, value)


def _ahead(products: Products, x: Tensor, sigma: Tensor, tangents: Tensor, value: Tensor) -> Tensor:
    """`[s(x + c t_k) − s(x)]/c`, given `s(x)`: one evaluation for each tangent, in one call."""
    count, batch = tangents.shape[:2]
    scale = (step_length(x, sigma, order=0) / norms(tangents)).reshape(count, batch, *[1] * (x.dim() - 1))
    levels = sigma if sigma.dim() == 0 else sigma.repeat(count)
    values = products._at(levels)((x + scale * tangents).flatten(0, 1)).reshape(tangents.shape)
    return (values - value) / scale


def _second_forward(products: Products, x: Tensor, sigma: Tensor, tangent: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    def along(y: Tensor) -> tuple[Tensor, Tensor]:
        return _pushed(products._at(sigma), y, tangent)

    # The derivative of (s, J t) along t is (J t, D²s[t, t]).
    (value, product), (_, curvature) = _pushed(along, x, tangent)
    return value, product, curvature


def _second_double(products: Products, x: Tensor, sigma: Tensor, tangent: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    def along(y: Tensor) -> Tensor:
        return linearised(products._at(sigma), y)[1](tangent)

    product, forward = linearised(along, x)
    return products._at(sigma)(x), product, forward(tangent)


def _second_finite(products: Products, x: Tensor, sigma: Tensor, tangent: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    value, product = _finite(products, x, sigma, tangent[None])
    scale = per_sample(step_length(x, sigma, order=2) / norms(tangent[None])[0], x)
    states = torch.cat([x + scale * tangent, x - scale * tangent])
    ahead, behind = products._at(sigma if sigma.dim() == 0 else sigma.repeat(2))(states).chunk(2)
    return value, product[0], (ahead - 2 * value + behind) / scale**2


_TANGENT = {"forward": _forward, "double-vjp": _double, "finite": _finite, "one-sided": _one_sided}
_SECOND = {
    "forward": _second_forward,
    "double-vjp": _second_double,
    "finite": _second_finite,
    "one-sided": _second_finite,
}
