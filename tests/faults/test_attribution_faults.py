"""Wrong attributions are rejected for their own reasons; right ones hold, on latents that were never published too."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from studies.verification import verify
from studies.verification.attributions import exact, images, tiers
from studies.verification.attributions.judge import judge_attribution
from studies.verification.faults.attributions import FAULTS, RIGHT, RIGHT_OF_KERNELS
from studies.verification.replies import Reply
from studies.verification.tasks.attribution import TASK

QUICK = ("reversed_influence", "tuned_on_queries")
SLOW = [fault for fault in FAULTS if fault.name not in QUICK]


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault.name in QUICK], ids=lambda fault: fault.name)
def test_a_wrong_attribution_is_rejected_for_its_own_reason(fault):
    """Assert that it fails its checks and no others, and that the report names the mistake."""
    report = verify(fault.estimator, "attribution", problems=["exact-features-logit"], orders=False)
    failed = set(report.failed_checks)
    assert "derivative" in failed or "fresh" in failed
    assert failed <= set(fault.checks)
    assert any(fault.says in sentence for sentence in report.findings())


@pytest.mark.slow
@pytest.mark.parametrize("fault", SLOW, ids=lambda fault: fault.name)
def test_every_wrong_attribution_is_rejected_for_its_own_reason(fault):
    """Assert the same of the others, on two outputs."""
    problems = ["exact-features-ink", "exact-features-logit"]
    assert not fault.caught(verify(fault.estimator, "attribution", problems=problems, orders=False))


def test_a_right_attribution_holds_and_declines_what_has_no_parameters():
    """Assert that the influence by drawn noises holds, and that a declined problem is no failure."""
    report = verify(RIGHT, "attribution", problems=["exact-features-logit", "exact-kernels-logit"], orders=False)
    assert report.holds
    assert len(report.judged) == 1


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 21))
@pytest.mark.parametrize("setting", ["exact-features", "exact-kernels"])
def test_right_attributions_are_not_rejected_on_fresh_seeds(setting, seed):
    """Assert that they hold on twenty sets of latents and halves, for every output."""
    right = RIGHT if setting == "exact-features" else RIGHT_OF_KERNELS
    problems = [f"{setting}-{output}" for output in exact.FUNCTIONALS]
    report = verify(right, "attribution", problems=problems, seed=seed, orders=False)
    assert len(report.judged) == len(problems)
    assert report.holds, report.findings()


def test_random_numbers_are_not_better_than_chance():
    """Assert that random attributions fail the check of correlation, although some correlate positively."""

    def random(problem):
        return np.random.default_rng(len(values)).standard_normal((len(problem.latents), len(problem.data)))

    values: list[bool] = []
    for _ in range(3):
        report = verify(random, "attribution", problems=["exact-kernels-ink"], orders=False)
        values.append("correlation" in report.failed_checks)
    assert all(values)


def test_the_problem_does_not_hold_the_truth():
    """Assert that no field leads to masks or outputs of subsets, and that arrays are copies."""
    from studies.verification.session import reproduce

    problem, _ = reproduce("attribution", "exact-kernels-ink")
    names = set(dir(problem))
    assert not names & {"masks", "outputs", "truth", "values", "derivative"}
    problem.data.zero_()
    assert tiers.exact_setting("exact-kernels", 0).data.abs().max() > 0


def test_numbers_at_random_fall_short_of_a_real_training():
    """Assert on the suite `trained` that numbers at random fail, in words that name the derivative's own score."""
    report = verify(
        lambda problem: np.random.default_rng(0).standard_normal((len(problem.latents), len(problem.data))),
        "attribution",
        problems=["trained-digits-ink"],
        orders=False,
    )
    assert {"correlation", "derivative"} <= set(report.failed_checks)
    assert any("score less that of the derivative: -0.9" in sentence for sentence in report.findings())


def _near(name, functional):
    """What the nearest points do to an output, from data and shipped samples alone (queries, N)."""
    setting, stored = images.SETTINGS[name], tiers.shipped(name)
    asked, points = stored.outputs(setting), setting.data
    samples = asked.reference
    near = torch.softmax(-torch.cdist(samples.flatten(1), points.flatten(1)).square() / points[0].numel() * 8, 1)
    pulled = torch.stack([asked.of_samples(functional, point.expand_as(samples)) for point in points], 1)
    return (near * (pulled - asked.of_samples(functional, samples)[:, None])).double().numpy()


@pytest.mark.parametrize("name", ["digits", "mnist14", "fashion14", "digits-unet"])
def test_wrong_attributions_of_retrained_networks_are_rejected_and_a_right_one_is_not(name):
    """Assert that a right one holds; that the reversed and the shuffled are no better than chance, and that the same
    numbers for every query are told as such. What costs precision alone, such as a damping, is not seen here: it is
    better than chance, and is told by its score."""
    if name not in {case.law for case in TASK.suite("full")}:
        pytest.skip(TASK.left_out("full")[0])
    case, rng = TASK.case(f"{name}-ink"), np.random.default_rng(0)
    right = _near(name, "ink")
    wrong = {
        "right": (right, set()),
        "reversed": (-right, {"correlation"}),
        "shuffled": (rng.permuted(right, axis=1), {"correlation"}),
        "own": (np.tile(np.abs(right).mean(0), (len(right), 1)), {"correlation", "queries"}),
    }
    for kind, (values, checks) in wrong.items():
        assert set(judge_attribution(case, [Reply(value=values)]).failed) == checks, kind
