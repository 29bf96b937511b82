"""vae.models and vae.bounds where all is known: every window, its probability, the integral over its code."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import CPU, HEADED, REAL, SMALL, chi_square, each_tensor, noise_for, randomise, sample
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from vae.bounds import evaluate, importance_weighted_bound
from vae.config import Config
from vae.corpus import Split
from vae.encoding import DataSpec
from vae.models import base
from vae.models.base import WindowVae
from vae.models.likelihood import SCALE_FLOOR
from vae.models.registry import build_model
from vae.windows import Batch, Songs

TOY = DataSpec("binary", 2, 1, 2, 100.0, 4, 4)
WINDOWS = torch.tensor(list(itertools.product([0.0, 1.0], repeat=8))).view(256, 4, 2)
"""All windows of four steps of two keys."""
ROWS = 1000


def make_toy(family, head, seed=0, **params):
    """A model of four steps, two bars, of two keys, with random weights and one code dimension."""
    config = Config(**SMALL[family] | {"window": 4, "latent_dim": 1, "head": head, "transpose": 2, **params})
    gain = 2.5 if family == "hierarchical" else 1.0  # a code passes three layers before a key hears of it
    model = randomise(build_model(config, TOY).eval(), seed, gain)
    posterior = model.correction if family == "sequential" else model.posterior
    with torch.no_grad():  # not the prior, yet wide enough for importance weights without a heavy tail
        posterior.weight.mul_(0.4)
        posterior.bias.copy_(torch.tensor([0.8, 0.3]))
    return model


def place(n, begins=False, previous=(1.0, 0.0), steps=4):
    """Where n windows of the toy lie: at the start of a song, or after a step."""
    before = torch.zeros(n, 2) if begins else torch.tensor([previous]).repeat(n, 1)
    mask = torch.ones(n, steps, dtype=torch.bool)
    return Batch(torch.zeros(n, steps, 2), mask, before, torch.full((n,), begins), torch.zeros(n, dtype=torch.long))


def grid(points=201, reach=6.0):
    """Points of a standard normal and the logarithms of their weights."""
    at = torch.linspace(-reach, reach, points)
    return at, Normal(0.0, 1.0).log_prob(at.double()) + math.log(2 * reach / (points - 1))


def exact(model, batch):
    """Log p(x) of each window, by integrating over the code."""
    at, log_weight = grid()
    found = []
    for row in range(len(batch.x)):
        window = each_tensor(batch, lambda part, row=row: part[row, None])
        many = each_tensor(window, lambda part: part.expand(len(at), *part.shape[1:]))
        z = at[:, None]
        if model.code_unit == "step":  # a code depends on the steps before, not on their codes: an integral a step
            z = at[:, None, None].expand(-1, len(window.x[0]), -1)
        h = model.states(many, z)
        by_step = model.head.log_prob(h.flatten(0, 1), many.x.flatten(0, 1)).view(h.shape[:2]).double()
        parts = by_step if model.code_unit == "step" else by_step.sum(1, keepdim=True)
        found.append((parts + log_weight[:, None]).logsumexp(0).sum())
    return torch.stack(found)


# Binary data: all windows


@torch.no_grad()
@pytest.mark.parametrize(("family", "head"), HEADED)
def test_the_elbo_is_a_bound_that_importance_weighting_raises(family, head):
    model = make_toy(family, head)
    windows = sample(model, 3, 4, 1.0, torch.Generator().manual_seed(0))
    batch = replace(place(3), x=windows, previous=torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]]))
    batch = replace(batch, begins=torch.tensor([True, False, False]), shift=torch.tensor([0, 1, -2]))
    answer, draws = exact(model, batch), 1000
    for row in range(3):
        one = each_tensor(batch, lambda part, row=row: part[row, None])
        means, errors = [], []
        for samples in (1, 2, 8, 32):
            many = each_tensor(one, lambda part, samples=samples: part.repeat_interleave(draws * samples, 0))
            log_likelihood, code = model.terms(many, noise_for(model, many, samples))
            weights = (log_likelihood + code.log_ratio).double().view(draws, samples)
            bounds = weights.logsumexp(1) - math.log(samples)
            means.append(bounds.mean().item())
            errors.append(bounds.std().item() / draws**0.5)
        elbo = (log_likelihood - code.kl).double()
        assert elbo.mean() < answer[row] + 4 * elbo.std() / len(elbo) ** 0.5
        assert elbo.mean() == pytest.approx(means[0], abs=4 * errors[0])
        assert means == sorted(means)
        assert all(mean < answer[row] + 4 * error for mean, error in zip(means, errors, strict=True))
        assert code.kl[0] > 0.05
        # The last weights, all together: their mean estimates p(x) without bias.
        ratio = (weights - answer[row]).exp().flatten()
        assert ratio.mean().item() == pytest.approx(1.0, abs=5 * ratio.std().item() / len(ratio) ** 0.5)
        assert ratio.std() / len(ratio) ** 0.5 < 0.1


@torch.no_grad()
@pytest.mark.parametrize(("family", "head"), HEADED)
def test_a_thousand_draws_all_but_close_the_gap(family, head):
    model = make_toy(family, head)
    (model.correction if family == "sequential" else model.posterior).bias[1] = 1.0  # wide: weights have no heavy tail
    windows = sample(model, 8, 4, 1.0, torch.Generator().manual_seed(0))
    songs = Songs(Split(windows.flatten(0, 1).numpy().astype(np.uint8), np.full(8, 4)), CPU)
    answer = exact(model, replace(place(8, begins=True), x=windows)).sum().item() / songs.steps
    gap = answer - evaluate(model, songs, 0)["elbo"]
    assert importance_weighted_bound(model, songs, 0, 1000) == pytest.approx(answer, abs=gap / 10)


@torch.no_grad()
@pytest.mark.parametrize(("family", "head"), HEADED)
def test_a_model_is_a_distribution_over_windows(family, head):
    """The probabilities of all 2^8 windows sum to 1, whatever the code and the step before."""
    model = make_toy(family, head)
    for begins in (True, False):
        batch = replace(place(256, begins), x=WINDOWS)
        for z in 2 * noise_for(model, place(3)):
            total = model.log_likelihood(batch, z.expand(256, *z.shape)).double().logsumexp(0).item()
            assert total == pytest.approx(0.0, abs=1e-5)
    assert exact(model, batch).logsumexp(0).item() == pytest.approx(0.0, abs=1e-4)


def log_prob_at(model, batch, z, temperature):
    """Log-probability of each window, with all logits over the temperature."""
    h = model.states(batch, z).flatten(0, 1)
    logits = model.head.logits(h, batch.x.flatten(0, 1)).double() / temperature
    signed = torch.where(batch.x.flatten(0, 1) > 0, logits, -logits)
    return torch.nn.functional.logsigmoid(signed).sum(1).view(batch.mask.shape).sum(1)


def counts(draws):
    """How often each of `WINDOWS` was drawn."""
    place_value = 2.0 ** torch.arange(7, -1, -1)
    return torch.bincount((draws.flatten(1) @ place_value).long(), minlength=256)


@torch.no_grad()
@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize(("family", "head"), HEADED)
def test_draws_follow_the_likelihood(family, head, temperature):
    """Counts of all windows, at the start of a song and after a step."""
    model, n = make_toy(family, head), 20_000
    z = noise_for(model, place(1), seed=1)
    for begins, after in ((True, None), (True, place(n, begins=True)), (False, place(n))):
        generator = torch.Generator().manual_seed(2)
        draws = model.decode(z.expand(n, *z.shape[1:]), 4, temperature, generator, after)
        batch = replace(place(256, begins), x=WINDOWS)
        every = z.expand(256, *z.shape[1:])
        p = log_prob_at(model, batch, every, temperature)
        if temperature == 1.0:
            torch.testing.assert_close(p, model.log_likelihood(batch, every).double(), rtol=1e-4, atol=1e-4)
        assert chi_square(counts(draws), p.exp()) > 1e-3


@torch.no_grad()
@pytest.mark.parametrize(("family", "head"), HEADED)
def test_pieces_follow_the_exact_likelihood(family, head):
    """Counts of all windows whose codes were drawn too."""
    model = make_toy(family, head)
    draws = sample(model, 20_000, 4, 1.0, torch.Generator().manual_seed(3))
    p = exact(model, replace(place(256, begins=True), x=WINDOWS)).exp()
    assert chi_square(counts(draws), p) > 1e-3


@torch.no_grad()
@pytest.mark.parametrize(("family", "head"), HEADED)
def test_a_model_knows_the_transposition(family, head):
    model = make_toy(family, head)
    batch = replace(place(5), x=WINDOWS[[27]].repeat(5, 1, 1), shift=torch.arange(-2, 3))
    z = noise_for(model, place(1)).expand(model.code_shape(*batch.mask.shape))
    assert len(model.log_likelihood(batch, z).unique()) == 5
    assert len(model.code(batch, torch.zeros_like(z)).posterior.mean.flatten(1)[:, -1].unique()) == 5


# Real data: a linear model


class LinearGaussian(WindowVae):
    """p(x|z) = N(W z + b, s^2 I), columns of W orthogonal, so that the exact posterior has independent dimensions.

    `shift` and `stretch` of the exact posterior make it wrong.
    """

    bias = torch.tensor([0.3, -1.0, 0.0, 2.0, 0.1])
    scale = 0.5

    def __init__(self, shift=0.0, stretch=1.0):
        super().__init__(Config(window=1, latent_dim=2), REAL, None, None)
        basis = np.linalg.qr([[1, 1], [1, -1], [0, 1], [2, 0], [0, 1]])[0]
        self.weight = torch.tensor(basis * [1.5, 0.7], dtype=torch.float32)
        self.shift, self.stretch = shift, stretch
        with torch.no_grad():
            self.head.likelihood.log_scale.fill_(math.log(self.scale - SCALE_FLOOR))

    def encode(self, batch):
        precision = 1.0 + self.weight.square().sum(0) / self.scale**2
        mean = (batch.x[:, 0] - self.bias) @ self.weight / self.scale**2 / precision
        std = precision.rsqrt().expand_as(mean)
        return base.Normal(mean + self.shift * std, self.stretch * std)

    def states(self, batch, z):
        del batch
        return (z @ self.weight.T + self.bias)[:, None]

    def decode(self, z, steps, temperature, generator, after=None):
        raise NotImplementedError

    def exact(self, x):
        """Log N(x; b, W W^T + s^2 I), the mean over rows."""
        weight = self.weight.double()
        covariance = weight @ weight.T + self.scale**2 * torch.eye(5, dtype=torch.float64)
        return MultivariateNormal(self.bias.double(), covariance).log_prob(x.double()).mean().item()


@pytest.fixture(scope="module")
def rows():
    """Rows from the linear model itself, as songs of one step."""
    model, generator = LinearGaussian(), torch.Generator().manual_seed(0)
    z = torch.randn(ROWS, 2, generator=generator)
    x = z @ model.weight.T + model.bias + model.scale * torch.randn(ROWS, 5, generator=generator)
    return Songs(Split(x.detach().numpy(), np.ones(ROWS, np.int64)), CPU)


@pytest.mark.parametrize("samples", [1, 2, 16])
@pytest.mark.parametrize("seed", [0, 1])
def test_with_the_exact_posterior_every_importance_weight_is_the_likelihood(rows, samples, seed):
    model = LinearGaussian()
    found = importance_weighted_bound(model, rows, seed, samples)
    assert found == pytest.approx(model.exact(rows.values[:-1]), abs=1e-4)  # float32


def test_with_the_exact_posterior_the_elbo_is_the_likelihood(rows):
    model = LinearGaussian()
    found = np.array([evaluate(model, rows, seed)["elbo"] for seed in range(4)])
    # The KL is exact and the log-likelihood of a unit has a standard deviation of about 1 over the noise.
    assert found.mean() == pytest.approx(model.exact(rows.values[:-1]), abs=5 / math.sqrt(4 * ROWS))


def test_with_a_wrong_posterior_the_bounds_rise_towards_the_likelihood(rows):
    model = LinearGaussian(shift=0.7, stretch=1.3)
    exact = model.exact(rows.values[:-1])
    found = [evaluate(model, rows, 0)["elbo"]]
    found += [importance_weighted_bound(model, rows, 0, samples) for samples in (2, 8, 32)]
    assert found == sorted(found)
    assert exact - found[0] > 0.3
    assert found[-1] == pytest.approx(exact, abs=0.02)
    assert found[-1] < exact + 1e-3


def test_the_gap_of_the_elbo_is_the_divergence_from_the_exact_posterior(rows):
    exact, wrong = LinearGaussian(), LinearGaussian(shift=0.7, stretch=1.3)
    batch = rows.batch(rows.partition(1), 1)
    gap = kl_divergence(Normal(*wrong.encode(batch)), Normal(*exact.encode(batch))).sum(1).mean().item()
    found = np.mean([evaluate(wrong, rows, seed)["elbo"] for seed in range(4)])
    assert found == pytest.approx(exact.exact(rows.values[:-1]) - gap, abs=10 / math.sqrt(4 * ROWS))


def test_a_decoder_that_uses_its_code_gains(rows):
    model = LinearGaussian()
    found = evaluate(model, rows, 0)
    # E log p(x|z) - E log p(x|z'): z' is an independent draw from the marginal, which is the prior.
    # So (|x - W z' - b|^2 - |x - W z - b|^2) / (2 s^2) has the mean |W|^2 / s^2.
    expected = model.weight.square().sum().item() / model.scale**2
    assert found["code_gain"] == pytest.approx(expected, rel=0.1)  # of 1000 rows


def test_units_that_vary_are_active():
    model, generator = LinearGaussian(), torch.Generator().manual_seed(0)
    x = model.bias + torch.randn(500, 1, generator=generator) * model.weight[:, 0]  # along one direction
    found = evaluate(model, Songs(Split(x.numpy(), np.ones(500, np.int64)), CPU), 0)
    assert found["active_units"] == 1
