"""Training by replayed CUDA graphs: of a small network's step, nearly all the time is spent launching kernels.

Parameters lie in one vector, so that Adam (Kingma & Ba 2015, arXiv 1412.6980) and the average of the parameters are a
few operations on vectors. A step is recorded once and replayed; what changes from step to step, the data's rows, noise
levels, noise and rates, is written beforehand into tensors that stay where they are (`Feed`). Networks that read one
feed see the same randomness, on laws of the data that are coupled as in `studies.training.batches`. On a device other
than a GPU the same step runs unrecorded.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from studies.networks import Denoiser
from studies.training import Objective
from studies.training.batches import Draw, Law

BETAS, EPSILON = (0.9, 0.999), 1e-8
WARMUP = 3  # steps before a recording, in which libraries choose their algorithms and allocate


class Feed:
    """One step's randomness, in tensors that stay where they are.

    Attributes:
        clean: drawn data of each law, each (batch, *shape). level: uniforms in (0, 1), (batch,). noise: like the data.
        rate, kept: of the step, 0-d: learning rate, and the share of the average that stays.
        rows: of the pool, those that were drawn for each law last, each (batch,).

    Args:
        pool: data (N, *shape) on the device.
        laws: weights (N,) of each network's data, None for equal ones.
        batch: data a step.
        seed: of everything drawn.
    """

    def __init__(self, pool: Tensor, laws: Sequence[Tensor | None], batch: int, seed: int) -> None:
        self.pool, self.batch = pool, batch
        self.generator = torch.Generator(pool.device).manual_seed(seed)
        self.laws = [_on(Law(weights, len(pool)), pool.device) for weights in laws]
        self.clean = [torch.empty_like(pool[:1]).repeat(batch, *[1] * (pool.dim() - 1)) for _ in laws]
        self.noise = torch.empty_like(self.clean[0])
        self.level = pool.new_empty(batch)
        self.rate, self.kept, self.count = (torch.zeros((), device=pool.device) for _ in range(3))
        self.order = torch.empty(0, dtype=torch.int64, device=pool.device)
        self.rows: list[Tensor] = []

    def restart(self, seed: int) -> None:
        """Draw anew from a seed."""
        self.generator.manual_seed(seed)
        self.order = self.order[:0]

    def draw(self, step: int, *, rate: float, kept: float) -> None:
        """Fill the tensors for step 0, 1, … of a run."""
        u, v = self._uniform(torch.float64).unbind()
        visited = self._visited()
        self.rows = [law.take(visited, u, v) for law in self.laws]
        for rows, clean in zip(self.rows, self.clean, strict=True):
            torch.index_select(self.pool, 0, rows, out=clean)
        self.level.copy_(self._uniform(torch.float32)[0].clamp_(1e-6, 1 - 1e-6))
        self.noise.normal_(generator=self.generator)
        self.rate.fill_(rate)
        self.kept.fill_(kept)
        self.count.fill_(step + 1)

    def _uniform(self, dtype: torch.dtype) -> Tensor:
        return torch.rand(2, self.batch, generator=self.generator, device=self.pool.device, dtype=dtype)

    def _visited(self) -> Tensor:
        """The next rows of a random order, each once an epoch."""
        while len(self.order) < self.batch:
            more = torch.randperm(len(self.pool), generator=self.generator, device=self.pool.device)
            self.order = torch.cat([self.order, more])
        rows, self.order = self.order[: self.batch], self.order[self.batch :]
        return rows


class Trainer:
    """One network on one law of a feed.

    Args:
        network: gets its parameters from a vector of the trainer's.
        feed: see `Feed`.
        law: which of its laws.
        objective: the loss.
        half: products in bfloat16.
        last: channels are the innermost axis in memory.
    """

    def __init__(
        self,
        network: Denoiser,
        feed: Feed,
        law: int,
        objective: Objective,
        *,
        half: bool = False,
        last: bool = False,
    ) -> None:
        self.network, self.feed, self.law, self.objective, self.half = network.train(), feed, law, objective, half
        self.parameters = list(network.parameters())
        self.orders = [_order(p, last) for p in self.parameters]
        self.vector = torch.cat([_flat(p.detach(), o) for p, o in zip(self.parameters, self.orders, strict=True)])
        self.average, self.first, self.second = self.vector.clone(), *(torch.zeros_like(self.vector) for _ in range(2))
        self.graph: torch.cuda.CUDAGraph | None = None
        self._place()

    def _place(self) -> None:
        """Make the parameters views of the vector."""
        for parameter, view in zip(self.parameters, self._views(self.vector), strict=True):
            parameter.requires_grad_(True)
            parameter.data = view

    def _views(self, vector: Tensor) -> list[Tensor]:
        parts = vector.split([p.numel() for p in self.parameters])
        return [_shaped(part, p.shape, o) for part, p, o in zip(parts, self.parameters, self.orders, strict=True)]

    def load(self, vector: Tensor) -> None:
        """Begin anew from these parameters."""
        with torch.no_grad():
            self.vector.copy_(vector)
            self.average.copy_(vector)
            self.first.zero_()
            self.second.zero_()

    def capture(self) -> None:
        """Record the step, where there is a GPU; parameters stay as they are."""
        start = self.vector.clone()
        self.feed.draw(0, rate=0.0, kept=1.0)
        if self.vector.is_cuda:
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(WARMUP):
                    self._step()
            torch.cuda.current_stream().wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                self._step()
            self.graph = graph
        self.load(start)

    def step(self) -> None:
        """One step on what the feed holds."""
        if self.graph is None:
            self._step()
        else:
            self.graph.replay()

    def _step(self) -> None:
        with torch.autocast(self.vector.device.type, torch.bfloat16, enabled=self.half, cache_enabled=False):
            draw = Draw(self.feed.clean[self.law], self.feed.level, self.feed.noise, self.feed.noise)
            loss = self.objective.losses(self.network, draw).mean()
        gradients = torch.autograd.grad(loss, self.parameters)
        with torch.no_grad():
            self._adam(torch.cat([_flat(g, o) for g, o in zip(gradients, self.orders, strict=True)]))

    def _adam(self, gradient: Tensor) -> None:
        (one, two), count = BETAS, self.feed.count
        self.first.lerp_(gradient, 1 - one)
        self.second.mul_(two).addcmul_(gradient, gradient, value=1 - two)
        size = (self.second / (1 - two**count)).sqrt_().add_(EPSILON)
        self.vector.sub_(self.first / size * (self.feed.rate / (1 - one**count)))
        self.average.mul_(self.feed.kept).add_(self.vector * (1 - self.feed.kept))

    def averaged(self) -> Denoiser:
        """A copy of the network with the averaged parameters, in the usual layout."""
        network = copy.deepcopy(self.network).eval().requires_grad_(False)
        for parameter, view in zip(network.parameters(), self._views(self.average), strict=True):
            parameter.data = view.detach().clone(memory_format=torch.contiguous_format)
        return network


def vector_of(trainer: Trainer, network: nn.Module) -> Tensor:
    """The parameters of another network of this architecture as the trainer's vector."""
    result = zip(network.parameters(), trainer.orders, strict=True)
    return torch.cat([_flat(p.detach().to(trainer.vector), order) for p, order in result])


def _on(law: Law, device: torch.device) -> Law:
    law.kept = law.kept.to(device)
    law.excess = None if law.excess is None else law.excess.to(device)
    return law


Order = tuple[int, ...]


def _order(parameter: Tensor, last: bool) -> Order:
    """How the axes of a parameter follow each other in memory."""
    return (0, 2, 3, 1) if last and parameter.dim() == 4 else tuple(range(parameter.dim()))


def _flat(value: Tensor, order: Order) -> Tensor:
    return value.permute(order).reshape(-1)


def _shaped(part: Tensor, shape: torch.Size, order: Order) -> Tensor:
    back = [order.index(axis) for axis in range(len(order))]
    return part.view([shape[axis] for axis in order]).permute(back)
