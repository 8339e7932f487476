"""Two estimators of the denoiser E[X | z], z = αX + σε: Tweedie's formula, and the same without its α."""


def tweedie(problem):
    """D = y + τ² s(y, τ) at y = z/α, τ = σ/α."""
    y, tau = problem.x / problem.alpha, problem.sigma / problem.alpha
    return y + tau**2 * problem.score(y, tau)


def wrong(problem):
    """What the formula is where α = 1."""
    return problem.x + problem.sigma**2 * problem.score(problem.x, problem.sigma)
