"""vae.loss: hand values, limits, gradients, and torch.distributions as the oracle."""

import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from vae.loss import kl_normal, log_normal_ratio, objective


def normals(seed, *shape):
    """Means and standard deviations, in double precision."""
    generator = torch.Generator().manual_seed(seed)
    mean = 3 * torch.randn(*shape, generator=generator, dtype=torch.float64)
    return mean, torch.rand(*shape, generator=generator, dtype=torch.float64) + 1e-3


def test_kl_is_that_of_torch_distributions():
    q, p = normals(0, 50, 7), normals(1, 50, 7)
    torch.testing.assert_close(kl_normal(*q, *p), kl_divergence(Normal(*q), Normal(*p)), rtol=1e-12, atol=1e-12)


def test_kl_by_hand():
    zero, one = torch.tensor(0.0), torch.tensor(1.0)
    assert kl_normal(zero, one, zero, one) == 0.0
    found = kl_normal(torch.tensor(2.0), torch.tensor(0.5), zero, one)
    assert found.item() == pytest.approx(0.5 * (4 + 0.25 - 1) + math.log(2), abs=1e-6)
    moved = kl_normal(torch.tensor(7.0), torch.tensor(1.5), torch.tensor(1.0), torch.tensor(3.0))
    assert moved.item() == pytest.approx(found.item(), abs=1e-6)  # in units of the prior it is the same


def test_kl_has_no_gradient_where_q_is_p():
    mean, std = (value.requires_grad_() for value in normals(0, 9))
    kl_normal(mean, std, mean.detach(), std.detach()).sum().backward()
    torch.testing.assert_close(mean.grad, torch.zeros_like(mean), rtol=0, atol=1e-9)
    torch.testing.assert_close(std.grad, torch.zeros_like(std), rtol=0, atol=1e-9)


def test_log_ratio_is_that_of_torch_distributions():
    (mean, std), p = normals(0, 50, 7), normals(1, 50, 7)
    noise = normals(2, 50, 7)[0]
    z = mean + std * noise
    expected = Normal(*p).log_prob(z) - Normal(mean, std).log_prob(z)
    torch.testing.assert_close(log_normal_ratio(z, noise, std, *p), expected, rtol=1e-9, atol=1e-9)


def test_the_log_ratio_is_minus_the_kl_on_average():
    mean, std, prior = torch.tensor(0.7), torch.tensor(0.6), (torch.tensor(-0.2), torch.tensor(1.1))
    noise = torch.randn(100_000, generator=torch.Generator().manual_seed(0))
    found = log_normal_ratio(mean + std * noise, noise, std, *prior)
    error = found.std().item() / math.sqrt(100_000)
    assert found.mean().item() == pytest.approx(-kl_normal(mean, std, *prior).item(), abs=4 * error)


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
