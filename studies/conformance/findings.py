"""What differs, analysed to its cause: whose it is, what happens, and a minimal example that runs on its own.

Every difference that the checks find has an entry; `mended` runs a corrected version where there is one.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from studies.conformance.azula import SIGMA_MAX, SIGMA_MIN, denoiser, schedules
from studies.conformance.common import Measured, converging, exact

__all__ = ["BESIDE", "FINDINGS", "Finding", "cause", "mended_reab"]


@dataclass(frozen=True)
class Finding:
    """One cause.

    Attributes:
        package: distribution name.
        version: the version in which it was seen.
        checks: names of the checks that show it.
        whose: `theirs`, `ours` or `convention`.
        cause: what happens and why.
        way_round: what a user can do.
        mend: the change proposed to its authors.
        example: Python that shows it, runnable as it stands.
    """

    package: str
    version: str
    checks: tuple[str, ...]
    whose: str
    cause: str
    way_round: str
    mend: str
    example: str

    @property
    def name(self) -> str:
        """The package and the first check that shows it."""
        return f"{self.package}: {self.checks[0]}"


FINDINGS = (
    Finding(
        "flow_matching",
        "1.0.10",
        ("likelihood-exact-image",),
        "theirs",
        "ODESolver.compute_likelihood(exact_divergence=True) counts the flattened coordinates of the velocity but "
        "indexes its unflattened axis 1 (ut[:, i]), so that any state with more coordinates than channels raises "
        "IndexError; states (n, d, 1, 1) work.  Hutchinson's branch flattens and is right.",
        "Flatten states and wrap the model so that it reshapes inside.",
        "Flatten the velocity before its coordinates are indexed, as Hutchinson's branch does.",
        """import torch
from flow_matching.solver import ODESolver
model = lambda x, t: -x
ODESolver(model).compute_likelihood(torch.randn(2, 1, 2, 2), lambda x: x.flatten(1).sum(1), step_size=0.5,
                                    exact_divergence=True)  # IndexError""",
    ),
    Finding(
        "flow_matching",
        "1.0.10",
        ("likelihood-hutchinson-float64",),
        "theirs",
        "The random projection is built as (randn_like(x) < 0) * 2.0 - 1.0: a Boolean times a Python number takes the "
        "default dtype, not that of x, and einsum refuses float64 states beside a float32 projection.",
        "Compute in the default dtype, or set torch.set_default_dtype(torch.float64).",
        "Give the projection the dtype of the states, (randn_like(x) < 0).to(x) * 2 - 1.",
        """import torch
from flow_matching.solver import ODESolver
model = lambda x, t: -x
ODESolver(model).compute_likelihood(torch.randn(2, 3).double(), lambda x: x.sum(1), step_size=0.5,
                                    time_grid=torch.tensor([1.0, 0.0]).double())  # expected scalar type Double""",
    ),
    Finding(
        "flow_matching",
        "1.0.10",
        ("conversions-time-per-row",),
        "theirs",
        "AffineProbPath.sample expands t (n,) along the rows of x, but target_to_velocity and its five sisters do not: "
        "with one time a row the coefficients broadcast along the last axis, which raises where n differs from it and "
        "is silently wrong where n equals it.",
        "Give conversions a scalar t, or t[:, None].",
        "Expand t along the rows of the states in the six conversions, as sample does.",
        """import torch
from flow_matching.path import CondOTProbPath
t, x0, x1 = torch.tensor([0.2, 0.5, 0.8]), torch.randn(3, 3), torch.randn(3, 3)
path = CondOTProbPath()
sample = path.sample(x_0=x0, x_1=x1, t=t)
print((path.target_to_velocity(x1, sample.x_t, t) - sample.dx_t).abs().max())          # not zero
print((path.target_to_velocity(x1, sample.x_t, t[:, None]) - sample.dx_t).abs().max())  # rounding""",
    ),
    Finding(
        "azula",
        "0.11.1",
        ("sample-REAB-2",),
        "theirs",
        "REABSampler scales the integral of a step from t to s by sqrt(alpha_s**2 + sigma_t**2) where its own "
        "documentation, and the exponential integrator, have sqrt(alpha_s**2 + sigma_s**2).  The sampler still "
        "converges, but only to first order whatever `order` says; with sigma_s the observed order is 2.",
        "Use zEABSampler or xEABSampler of the same order, which are right.",
        "sigma_s in place of sigma_t in the factor of the integral; the order is then 2, which was measured.",
        """import inspect
from azula.sample import REABSampler
print("sigma_t**2) * integral" in inspect.getsource(REABSampler.__call__))  # True""",
    ),
    Finding(
        "torchdiffeq",
        "0.2.5",
        ("explicit_adams-default", "explicit_adams-order-4"),
        "theirs",
        "explicit_adams inherits max_order = 12, and an explicit Adams method of eleven values has so small a region "
        "of stability that it diverges on a smooth flow with 16 to 512 steps.  The history is sized for the implicit "
        "corrector, which adds a value: with max_order − 1 values, the present one included, the explicit method has "
        "order max_order − 1, so that max_order = 4 gives order 3.",
        "Give options={'max_order': 5} for order 4, or use rk4, or implicit_adams, which is stable here.",
        "A small max_order by default, and as many values of history as the explicit method's order asks for.",
        """import torch
from torchdiffeq import odeint
t = torch.linspace(0, 5, 65, dtype=torch.float64)
x = torch.ones(1, dtype=torch.float64)
print(odeint(lambda t, x: -2 * x, x, t, method="explicit_adams")[-1])  # enormous; the solution is 5e-5
print(odeint(lambda t, x: -2 * x, x, t, method="explicit_adams", options={"max_order": 5})[-1])""",
    ),
)

# Of packages that `studies.conformance.beside` looks at.
BESIDE = (
    Finding(
        "torchdyn",
        "1.0.6",
        ("rk4",),
        "theirs",
        "construct_rk4 lists the times of all four stages, c = (0, 1/2, 1/2, 1), where its sister tables leave the "
        "first out, and RungeKutta4.step takes c[0], c[1], c[2] for its second, third and fourth stage: fields are "
        "asked at t, t + h/2 and t + h/2 instead of t + h/2, t + h/2 and t + h. A field that depends on time, such as "
        "every probability flow, is integrated to first order; one that does not is right.",
        "Use midpoint, dopri5 or tsit5, or make time a part of the state.",
        "Take c[1], c[2] and c[3] in RungeKutta4.step, or leave the first time out of construct_rk4.",
        """import torch
from torchdyn.numerics import odeint
x, f = torch.zeros(1, dtype=torch.float64), lambda t, x: t**3 + 0 * x
for steps in (10, 20):
    t = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    print(steps, float(odeint(f, x, t, "rk4")[1][-1]), "0.25 is right, to rounding")""",
    ),
    Finding(
        "bayesflow",
        "2.0.12",
        ("likelihood-hutchinson-3",),
        "theirs",
        "jacobian_trace(max_steps=n) below the dimension adds up n of Hutchinson's probes and never divides by n, so "
        "that the estimated divergence is n times too large, and log densities of flow matching and diffusion models "
        "are off by (n - 1) times the integral of the divergence (their issue 772). One probe is right.",
        "Give max_steps=1, or max_steps of at least the dimension, which is exact.",
        "Divide the sum over probes by their number.",
        """import os
os.environ["KERAS_BACKEND"] = "torch"
import keras
from bayesflow.utils import jacobian_trace
keras.utils.set_random_seed(0)
x = keras.ops.ones((2000, 5))
for steps in (1, 2, 4, 5):
    print(steps, float(keras.ops.mean(jacobian_trace(lambda y: 2.0 * y, x, max_steps=steps))))  # 10 is right""",
    ),
    Finding(
        "sbi",
        "0.27.0",
        ("guidance-affine_classifier_free-fm", "guidance-universal-fm"),
        "theirs",
        "All guidance calls the estimator itself, vf_estimator(input, condition, time), and takes the answer for a "
        "score. A score estimator's forward is its score; FlowMatchingEstimator's is its velocity, so that flow "
        "matching is guided along something that is no score, even where the guidance asks for nothing.",
        "Guide score estimators (NPSE) only.",
        "Call vf_estimator.score in AffineClassifierFreeGuidance, UniversalGuidance and PriorGuide.",
        """import torch
from torch.distributions import Independent, Normal
from sbi.inference.potentials import vector_field_adaptor as guides
from sbi.neural_nets.estimators.flowmatching_estimator import FlowMatchingEstimator
class Net(torch.nn.Linear):  # zero: with the baseline exact for data N(0, I)
    forward = lambda self, theta, x, t: 0 * theta
prior = Independent(Normal(torch.zeros(2), torch.ones(2)), 1)
made = FlowMatchingEstimator(Net(1, 1), torch.Size([2]), torch.Size([1]), gaussian_baseline=True)
guided = guides.AffineClassifierFreeGuidance(made, prior, guides.AffineClassifierFreeGuidanceConfig())
given = torch.ones(1, 1, 2), torch.zeros(1, 1), torch.tensor([0.3])
print(made.score(*given).flatten().tolist(), "the score")
print(guided.score(*given).flatten().tolist(), "guided with all scales 1 and shifts 0: should be the same")""",
    ),
    Finding(
        "sbi",
        "0.27.0",
        ("iid-auto_gauss-shifted", "law-iid-auto_gauss"),
        "theirs",
        "auto_gauss, the default way of combining several observations, estimates each posterior's covariance from "
        "draws as sum(theta theta^T) / (n - 1), without subtracting their mean. For a posterior away from zero that is "
        "the second moment, and the precision far too small: draws given three observations with a Gaussian prior and "
        "likelihood, for which the method is exact, lie a standard deviation beside. Centred at zero it is right, and "
        "so is precision_est_only_diag=True, which takes torch.var.",
        "Give iid_params={'precision_est_only_diag': True}, or iid_method='jac_gauss'.",
        "Subtract thetas.mean(0) before the product.",
        """import torch
from torch.distributions import MultivariateNormal
from sbi.inference.potentials.vector_field_adaptor import AutoGaussCorrectedScoreFn
from sbi.neural_nets.estimators.score_estimator import VPScoreEstimator
class Net(torch.nn.Linear):  # zero: every posterior is N(mean_0, std_0^2)
    forward = lambda self, theta, x, t: 0 * theta
torch.manual_seed(0)
made = VPScoreEstimator(Net(1, 1), torch.Size([1]), torch.Size([1]), mean_0=3.0, std_0=0.1, beta_max=20.0)
prior = MultivariateNormal(torch.zeros(1), 100 * torch.eye(1))
for diagonal in (False, True):
    method = AutoGaussCorrectedScoreFn(made, prior, precision_est_only_diag=diagonal)
    precision = method.posterior_precision_est_fn(torch.zeros(2, 1)).flatten().tolist()
    print("diagonal" if diagonal else "default", precision, "100 is right")""",
    ),
    Finding(
        "sbi",
        "0.27.0",
        ("denoise-mixture",),
        "theirs",
        "denoise_mixture weighs the components of the law of X given X_t by the density of each denoised component at "
        "x_t, where Bayes' rule has that of each component under noise, N(x_t; m mean, m^2 C + s^2 I). It serves "
        "mixture priors, and by a fitted mixture every prior that is not Gaussian or uniform.",
        "For such priors use iid_method='fnpe', which denoises none.",
        "component_loglikelihood = marginalize(component_dist, m, s).log_prob(x_t).",
        """import torch
from torch.distributions import Categorical, MixtureSameFamily, Normal
from sbi.utils.vector_field_utils import denoise
components = Normal(torch.tensor([-2.0, 2.0]), torch.tensor([0.5, 0.5]))
prior = MixtureSameFamily(Categorical(torch.ones(2)), components)
m, s, z = 0.5, 0.5, 0.4
grid = torch.linspace(-6, 6, 10_001)
weight = (prior.log_prob(grid) - (z - m * grid) ** 2 / (2 * s**2)).exp()
theirs = denoise(prior, torch.tensor([m]), torch.tensor([s]), torch.tensor([[z]]))
print(float(theirs.mean), "is E[X | X_t = 0.4]; by quadrature", float((weight * grid).sum() / weight.sum()))""",
    ),
    Finding(
        "sbi",
        "0.27.0",
        ("law-langevin",),
        "theirs",
        "After a predictor's step from t1 to t0 the Langevin corrector takes the score at t1, the noisier time, and "
        "draws the states back towards the law before the step. The fault shrinks with the step and grows with "
        "step_size and num_steps; asked with t1 = t0 the same code leaves the law as it is, which was measured.",
        "Many small steps, or the Gibbs corrector.",
        "self.predictor.potential_fn.gradient(theta, t0) in LangevinCorrector.correct.",
        """import torch
from torch.distributions import MultivariateNormal
from sbi.inference.posteriors.vector_field_posterior import VectorFieldPosterior
from sbi.neural_nets.estimators.score_estimator import VPScoreEstimator
from sbi.samplers.score import correctors, predictors
class Net(torch.nn.Linear):  # zero: the data are N(0, 0.01)
    forward = lambda self, theta, x, t: 0 * theta
torch.manual_seed(0)
made = VPScoreEstimator(Net(1, 1), torch.Size([1]), torch.Size([1]), std_0=0.1, beta_max=20.0)
potential = VectorFieldPosterior(made, MultivariateNormal(torch.zeros(1), torch.eye(1))).potential_fn
potential.set_x(torch.zeros(1, 1))
t0, t1 = torch.tensor([0.1]), torch.tensor([0.2])
walk = correctors.LangevinCorrector(predictors.EulerMaruyama(potential), step_size=0.01, num_steps=500)
before, after = (float(made.approx_marginal_std(t)) for t in (t1, t0))
print(float(walk(after * torch.randn(4000, 1, 1), t0, t1).std()), "should be", after, "and is near", before)""",
    ),
    Finding(
        "sbi",
        "0.27.0",
        ("path-fm", "score-fm"),
        "theirs",
        "Flow matching's path is z = (1 - t) theta + (t + c) epsilon with c = noise_scale, whose score is "
        "-(z + (1 - t) v) / ((1 + c) (t + c)) and whose g^2 is 2 (1 + c) (t + c) / (1 - t); both lack 1 + c. The two "
        "cancel in the reverse drift, so that its sampler is right but for the noise; scores err by noise_scale, a "
        "thousandth by default.",
        "Keep noise_scale small.",
        "The factor 1 + noise_scale in score and diffusion_fn.",
        """import torch
from sbi.neural_nets.estimators.flowmatching_estimator import FlowMatchingEstimator
class AtZero(FlowMatchingEstimator):  # all data at 0: z = (t + c) epsilon, velocity epsilon
    forward = lambda self, input, condition, time: input / (time + self.noise_scale)
made = AtZero(torch.nn.Linear(1, 1), torch.Size([1]), torch.Size([1]), noise_scale=0.1)
z, x, t = torch.ones(1, 1), torch.zeros(1, 1), torch.tensor([0.4])
print(float(made.score(z, x, t)), "is the score of N(0, 0.25) at 1; right is -4")""",
    ),
    Finding(
        "sbi",
        "0.27.0",
        ("loss-variance",),
        "theirs",
        "weight_fn='variance' returns weights of shape (n, 1), which multiply losses of shape (n,) to (n, n). The mean "
        "of that is the mean weight times the mean loss: no time is weighted.",
        "Give weight_fn=lambda t: made.std_fn(t)[:, 0] ** 2, or 'max_likelihood'.",
        "Drop the last axis of std_fn in _variance_weight_fn.",
        """import torch
from sbi.neural_nets.estimators.score_estimator import VPScoreEstimator
class Net(torch.nn.Linear):
    forward = lambda self, theta, x, t: 0 * theta
made = VPScoreEstimator(Net(1, 1), torch.Size([2]), torch.Size([1]), weight_fn="variance")
print(tuple(made.loss(torch.randn(8, 2), torch.zeros(8, 1)).shape), "(8,) is right")""",
    ),
    Finding(
        "sbi",
        "0.27.0",
        ("iid-fnpe-weight",),
        "theirs",
        "FactorizedNPEScoreFunction names its weight only where none is given; one that is given raises "
        "UnboundLocalError. Its documentation has the default the wrong way round, too: it is one at t = 0.",
        "Set prior_score_weight_fn on the made object.",
        "self.prior_score_weight_fn = prior_score_weight where it is given.",
        """import torch
from sbi.inference.potentials.vector_field_adaptor import FactorizedNPEScoreFunction
from sbi.neural_nets.estimators.score_estimator import VPScoreEstimator
made = VPScoreEstimator(torch.nn.Linear(1, 1), torch.Size([1]), torch.Size([1]))
try:
    FactorizedNPEScoreFunction(made, None, prior_score_weight=lambda t: 1 - t)
except UnboundLocalError as error:
    print(error)""",
    ),
    Finding(
        "sbi",
        "0.27.0",
        ("marginalize-uniform",),
        "theirs",
        "The density of m U + s epsilon for a uniform U lacks the factor 1 / m in each dimension and integrates to m. "
        "Scores, all that is used of it, do not see a constant.",
        "Add -d log m to log_prob.",
        "Divide by scale * (high - low) in UniformNormalConvolution.log_prob.",
        """import torch
from torch.distributions import Uniform
from sbi.utils.vector_field_utils import marginalize
grid = torch.linspace(-3, 3, 10_001)
density = marginalize(Uniform(-1.0, 1.0), torch.tensor(0.5), torch.tensor(0.1)).log_prob(grid).exp()
print(float(torch.trapezoid(density, grid)), "is the density's integral")""",
    ),
    Finding(
        "nvidia-physicsnemo",
        "2.2.2",
        ("law-ve-stochastic_heun-documented", "law-vp-stochastic_heun-documented"),
        "theirs",
        "EDMStochasticEulerSolver and EDMStochasticHeunSolver multiply the noise that lifts a state from sigma to "
        "sigma_hat, whose variance is sigma_hat**2 - sigma**2, once more by sqrt(g**2(t) / (2 t)), with g of the "
        "diffusion_fn that their documentation passes. The factor is 1 for EDM's own schedule alone; where sigma = "
        "sqrt(t) it is 1 / sqrt(2 t), too little noise at high levels and too much at low ones.",
        "Leave diffusion_fn out where the variance explodes; for other schedules see the next row.",
        "Leave the factor out wherever sigma_fn and sigma_inv_fn are given.",
        """import torch
from physicsnemo.diffusion.noise_schedulers import VENoiseScheduler
from physicsnemo.diffusion.samplers import sample
torch.manual_seed(0)
ve = VENoiseScheduler()  # sigma = sqrt(t), g^2 = 1
flow = ve.get_denoiser(score_predictor=lambda x, t: -x / (1 + t[:, None]))  # of data N(0, 1)
x = 10**0.5 * torch.randn(20000, 1)
for noise in ({}, {"diffusion_fn": ve.diffusion}):
    options = {"S_churn": 40, "num_steps": 150, "sigma_fn": ve.sigma, "sigma_inv_fn": ve.sigma_inv, **noise}
    y = sample(flow, x, ve, 0, "edm_stochastic_heun", torch.linspace(9.0, 0.01, 151), options)
    print(f"{list(noise)}: variance {y.var():.2f}, right is 1.01")""",
    ),
    Finding(
        "nvidia-physicsnemo",
        "2.2.2",
        ("law-vp-stochastic_heun-maps",),
        "theirs",
        "The stochastic solvers raise the noise level of a state and move its time back, but leave the signal as it "
        "is: x of alpha(t) x0 + sigma(t) eps is not multiplied by alpha(t_hat) / alpha(t), and the noise that is "
        "added is that of an unscaled state. Where alpha is not 1 the draws are of another law, wider at every step.",
        "Use stochastic solvers with schedules of alpha = 1 only, or the deterministic ones.",
        "Raise the level l = sigma / alpha, and take x_hat = alpha(t_hat) (x / alpha(t) + sqrt(l_hat**2 - l**2) eps): "
        "so mended, the law is right (p-values beside the check).",
        """import torch
from physicsnemo.diffusion.noise_schedulers import VPNoiseScheduler
from physicsnemo.diffusion.samplers import sample
torch.manual_seed(0)
vp = VPNoiseScheduler()
flow = vp.get_denoiser(score_predictor=lambda x, t: -x)  # of data N(0, 1), which the schedule leaves as it is
x, maps = torch.randn(20000, 1), {"sigma_fn": vp.sigma, "sigma_inv_fn": vp.sigma_inv}
for noise in ({}, {"diffusion_fn": vp.diffusion}):
    options = {"S_churn": 40, "num_steps": 150, "S_max": 0.7, **maps, **noise}
    y = sample(flow, x, vp, 0, "edm_stochastic_heun", torch.linspace(1.0, 0.02, 151), options)
    print(f"{list(noise)}: variance {y.var():.2f}, right is 1")""",
    ),
    Finding(
        "nvidia-physicsnemo",
        "2.2.2",
        ("vp-churn-from-the-top",),
        "theirs",
        "sigma_hat = (1 + gamma) sigma is beyond 1 at the high levels of a schedule that preserves variance; "
        "VPNoiseScheduler.sigma_inv takes the logarithm of a negative number there, and the documentation's own "
        "example of EDMStochasticHeunSolver returns NaN when it starts where sampling starts, at t = 1.",
        "Give S_max below 0.7, which leaves those levels without churn.",
        "Raise the level sigma / alpha, which has no upper end, as in the row above.",
        """import torch
from physicsnemo.diffusion.noise_schedulers import VPNoiseScheduler
from physicsnemo.diffusion.samplers import EDMStochasticHeunSolver
vp = VPNoiseScheduler()
flow = vp.get_denoiser(score_predictor=lambda x, t: -x)
maps = {"sigma_fn": vp.sigma, "sigma_inv_fn": vp.sigma_inv, "diffusion_fn": vp.diffusion}
solver = EDMStochasticHeunSolver(flow, S_churn=40, num_steps=10, **maps)
print(vp.sigma_inv(torch.tensor(1.4)), solver.step(torch.ones(1, 1), torch.ones(1), torch.tensor([0.9])))  # nan""",
    ),
)


def cause(package: str, check: str) -> Finding | None:
    """The finding that explains a check of a package, or None."""
    return next((f for f in (*FINDINGS, *BESIDE) if f.package == package and check in f.checks), None)


def mended_reab(size: int = 2) -> Measured:
    """azula's REAB sampler with `sigma_s` in the last factor and its own coefficients: observed order two."""
    from azula.sample import REABSampler

    network, schedule = exact(), schedules()["VE"]
    made = denoiser(network, schedule)
    x = network.states(8, SIGMA_MAX, 5)

    def run(steps: int) -> Tensor:
        times = torch.linspace(1.0, 0.0, steps + 1, dtype=torch.float64)
        alpha, sigma = schedule(times)
        u, z = (sigma / alpha).log(), x
        past: list[Tensor] = []
        for i, t in enumerate(times[:-1]):
            share = sigma[i] ** 2 / (alpha[i] ** 2 + sigma[i] ** 2)
            past = [*past[-1:], ((1 - share) / alpha[i] * z - made(z, t).mean) / share.sqrt()]
            weights = REABSampler._exponential_adams_bashforth(u, i=i, n=2)
            root = [(alpha[j] ** 2 + sigma[j] ** 2).sqrt() for j in (i, i + 1)]
            z = root[1] / root[0] * z + root[1] * sum(w * f for w, f in zip(weights, past, strict=True))
        return z

    truth = network.end(x, SIGMA_MAX, SIGMA_MIN)
    return converging(run, truth, [16 * size, 32 * size, 64 * size], 2e-2, 2.0)
