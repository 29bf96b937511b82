"""vae.loss: hand values, limits, gradients, and torch.distributions as the oracle."""

import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from vae.loss import kl_normal, log_normal_ratio, objective

PRIOR = Normal(torch.zeros((), dtype=torch.float64), torch.ones((), dtype=torch.float64))


def normals(seed, *shape):
    """Means and standard deviations, in double precision."""
    generator = torch.Generator().manual_seed(seed)
    mean = 3 * torch.randn(*shape, generator=generator, dtype=torch.float64)
    return mean, torch.rand(*shape, generator=generator, dtype=torch.float64) + 1e-3


def test_kl_is_that_of_torch_distributions():
    q = normals(0, 50, 7)
    torch.testing.assert_close(kl_normal(*q), kl_divergence(Normal(*q), PRIOR), rtol=1e-12, atol=1e-12)


def test_kl_by_hand():
    assert kl_normal(torch.tensor(0.0), torch.tensor(1.0)) == 0.0
    found = kl_normal(torch.tensor(2.0), torch.tensor(0.5))
    assert found.item() == pytest.approx(0.5 * (4 + 0.25 - 1) + math.log(2), abs=1e-6)


def test_kl_has_no_gradient_where_q_is_p():
    mean, std = torch.zeros(9, requires_grad=True), torch.ones(9, requires_grad=True)
    kl_normal(mean, std).sum().backward()
    assert not mean.grad.any()
    assert not std.grad.any()


def test_log_ratio_is_that_of_torch_distributions():
    (mean, std), noise = normals(0, 50, 7), normals(2, 50, 7)[0]
    z = mean + std * noise
    expected = PRIOR.log_prob(z) - Normal(mean, std).log_prob(z)
    torch.testing.assert_close(log_normal_ratio(z, noise, std), expected, rtol=1e-9, atol=1e-9)


def test_the_log_ratio_is_minus_the_kl_on_average():
    mean, std = torch.tensor(0.7), torch.tensor(0.6)
    noise = torch.randn(100_000, generator=torch.Generator().manual_seed(0))
    found = log_normal_ratio(mean + std * noise, noise, std)
    error = found.std().item() / math.sqrt(100_000)
    assert found.mean().item() == pytest.approx(-kl_normal(mean, std).item(), abs=4 * error)


def test_objective_by_hand():
    log_likelihood, kl = torch.tensor([-10.0, -20.0]), torch.tensor([3.0, 5.0])
    # 8 nats of KL and -30 of log-likelihood over 16 steps
    assert objective(log_likelihood, kl, 16, beta=1.0, free_bits=0.0).item() == 0.5 + 1.875
    assert objective(log_likelihood, kl, 16, beta=0.5, free_bits=0.0).item() == 0.25 + 1.875
    assert objective(log_likelihood, kl, 16, beta=2.0, free_bits=0.75).item() == 1.5 + 1.875
    assert objective(log_likelihood, kl, 16, beta=0.0, free_bits=0.75).item() == 1.875
    assert objective(log_likelihood, kl, 16, beta=torch.tensor(0.5), free_bits=0.0).item() == 0.25 + 1.875


def test_objective_without_weight_and_free_bits_is_minus_the_elbo():
    log_likelihood, kl = torch.randn(9, dtype=torch.float64) - 5, torch.rand(9, dtype=torch.float64)
    expected = -(log_likelihood - kl).sum() / 40
    torch.testing.assert_close(objective(log_likelihood, kl, 40, 1.0, 0.0), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize(("free_bits", "gradient"), [(0.0, 0.25), (0.49, 0.25), (0.51, 0.0), (100.0, 0.0)])
def test_kl_has_a_gradient_above_the_free_bits_only(free_bits, gradient):
    log_likelihood = torch.tensor([-10.0, -20.0], requires_grad=True)
    kl = torch.tensor([3.0, 5.0], requires_grad=True)  # a rate of 0.5
    objective(log_likelihood, kl, 16, beta=4.0, free_bits=free_bits).backward()
    assert torch.equal(kl.grad, torch.full((2,), gradient))
    assert torch.equal(log_likelihood.grad, torch.full((2,), -1 / 16))


def test_a_kl_that_is_not_finite_shows_in_the_loss():
    loss = objective(torch.tensor([-1.0]), torch.tensor([math.nan]), 1, beta=1.0, free_bits=0.5)
    assert loss.isnan()
