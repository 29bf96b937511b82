"""vae.models.heads and .likelihood: torch.distributions and slow loops as oracles, counting, gradients, limits."""

import itertools

import numpy as np
import pytest
import torch
from tiny import BINARY, REAL, SPECS, chi_square, randomise
from torch.distributions import Bernoulli as BernoulliOracle
from torch.distributions import Independent, Normal

from vae.config import Config
from vae.corpus import Split
from vae.encoding import DataSpec
from vae.models.heads import AutoregressiveHead, IndependentHead, build_head
from vae.models.likelihood import SCALE_FLOOR, Bernoulli, Gaussian, Moments, build_likelihood, moments_of

MOMENTS = Moments(np.array([0.2, 0.5, 0.9]), np.array([0.1, 1.0, 20.0]), np.ones(3, bool))
INPUTS = 7
KINDS = ("independent", "autoregressive")


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def keys(*shape, share=0.5, seed=1):
    return (torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) < share).float()


def make_head(kind, features, layers=1, gain=3.0):
    """A head with random weights, so large that keys depend on each other."""
    spec = DataSpec("binary", features, 1, None, 100.0, 1, 1)
    return randomise(
        build_head(Config(head=kind, head_width=9, head_layers=layers), spec, None, INPUTS).eval(), 3, gain
    )


def naive_logits(head, h, x):
    """A NADE, key by key: each from all keys below it."""
    rows = []
    for state, step in zip(h, x, strict=True):
        row = []
        for k in range(len(step)):
            below = torch.cat([step[:k], torch.zeros(len(step) - k)])
            s = torch.relu(head.read.weight @ state + head.read.bias + head.read_keys.weight @ below)
            for layer in head.layers:
                s = s + torch.relu(layer.weight @ s + layer.bias)
            row.append(head.output.weight[k] @ s + head.output.bias[k])
        rows.append(torch.stack(row))
    return torch.stack(rows)


def all_steps(features):
    return torch.tensor(list(itertools.product([0.0, 1.0], repeat=features)))


# Likelihoods


def test_bernoulli_is_that_of_torch_distributions():
    logits, x = 5 * random(4, 7, 3), keys(4, 7, 3)
    expected = Independent(BernoulliOracle(logits=logits.double()), 1).log_prob(x.double())
    found = Bernoulli(3, None).log_prob(logits, x)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)


def test_bernoulli_is_finite_and_right_at_extreme_logits():
    found = Bernoulli(1, None).log_prob(torch.tensor([[100.0], [-100.0]]), torch.tensor([[1.0], [1.0]]))
    assert found.tolist() == [0.0, -100.0]


@pytest.mark.parametrize("unit_interval", [False, True])
def test_gaussian_is_that_of_torch_distributions(unit_interval):
    likelihood, parameters = Gaussian(3, MOMENTS, unit_interval), random(4, 7, 3)
    x = torch.rand(4, 7, 3, generator=torch.Generator().manual_seed(1))
    center, scale = (torch.from_numpy(part).float() for part in MOMENTS[:2])  # the scale starts at train's
    mean = torch.sigmoid(parameters) if unit_interval else center + scale * parameters
    expected = Independent(Normal(mean.double(), scale.double()), 1).log_prob(x.double())
    torch.testing.assert_close(likelihood.log_prob(parameters, x).double(), expected, rtol=1e-4, atol=1e-4)


def test_a_scale_cannot_be_pushed_under_its_floor():
    likelihood = Gaussian(3, MOMENTS, unit_interval=False)
    optimizer = torch.optim.SGD(likelihood.parameters(), lr=10.0)
    x = torch.from_numpy(MOMENTS.mean).float()[None]
    for _ in range(200):  # a perfect mean: the smaller the scale, the higher the density
        optimizer.zero_grad()
        (-likelihood.log_prob(torch.zeros(1, 3), x)).sum().backward()
        optimizer.step()
    floor = SCALE_FLOOR * torch.from_numpy(MOMENTS.std)
    assert (likelihood.scale() >= floor).all()
    torch.testing.assert_close(likelihood.scale().double(), floor, rtol=0.1, atol=0)


def test_the_mean_stays_in_the_unit_interval():
    likelihood = Gaussian(3, MOMENTS, unit_interval=True)
    mean = likelihood.mean(torch.tensor([-8.0, 0.0, 8.0]))
    assert ((mean > 0) & (mean < 1)).all()
    assert torch.equal(likelihood.sample(torch.zeros(2, 3), 1.0, torch.Generator()), torch.full((2, 3), 0.5))


def test_a_likelihood_fits_its_data():
    kinds = {kind: build_likelihood(spec, None) for kind, spec in SPECS.items()}
    assert isinstance(kinds["binary"], Bernoulli)
    assert isinstance(kinds["real"], Gaussian)
    assert kinds["real"].mean(torch.tensor([7.0] * 5)).tolist() == [7.0] * 5
    assert kinds["unit"].mean(torch.tensor([0.0] * 5)).tolist() == [0.5] * 5


def test_moments_of_binary_data_are_smoothed():
    values = np.array([[1, 0], [1, 0], [1, 1]], np.uint8)
    moments = moments_of(Split(values, np.array([3])), BINARY)
    np.testing.assert_allclose(moments.mean, [4 / 5, 2 / 5])
    np.testing.assert_allclose(moments.std, np.sqrt([4 / 25, 6 / 25]))


def test_moments_of_real_data_leave_no_scale_at_zero():
    values = np.array([[1.0, 7.0], [3.0, 7.0]], np.float32)
    moments = moments_of(Split(values, np.array([1, 1])), REAL)
    np.testing.assert_allclose(moments.mean, [2.0, 7.0])
    np.testing.assert_allclose(moments.std, [1.0, 1.0])
    assert moments.varies.tolist() == [True, False]
    large = moments_of(Split(np.array([[1.7e9, 0.1], [1.8e9, 0.1], [1.9e9, 0.1]]), np.ones(3, np.int64)), REAL)
    assert large.varies.tolist() == [True, False]
    small = moments_of(Split(values * [1000.0, 0.0] + np.array([[0.0, 0.01], [0.0, 0.02]]), np.array([1, 1])), REAL)
    np.testing.assert_allclose(small.std, [1000.0, 0.005])  # however small, its own
    constant = moments_of(Split(np.full((3, 2), 7.0, np.float32), np.ones(3, np.int64)), REAL)
    assert (constant.std > 0).all()


@torch.no_grad()
def test_what_is_constant_in_train_is_never_thought_to_stay_so():
    """Else a model would be the worse for each value of it that is held out, the longer it is trained."""
    values = np.array([[1.0, 7.0], [3.0, 7.0]], np.float32)
    likelihood = Gaussian(2, moments_of(Split(values, np.array([1, 1])), REAL), False)
    likelihood.log_scale.fill_(-20.0)
    torch.testing.assert_close(likelihood.scale(), torch.tensor([SCALE_FLOOR, 1.0]))


# Heads


def test_a_head_is_what_the_config_names_and_starts_at_the_marginal():
    heads = {kind: build_head(Config(head=kind, head_width=9), BINARY, None, INPUTS) for kind in KINDS}
    assert isinstance(heads["independent"], IndependentHead)
    assert isinstance(heads["autoregressive"], AutoregressiveHead)
    moments = Moments(np.linspace(0.1, 0.9, 6), np.ones(6), np.ones(6, bool))
    for kind in KINDS:
        head = build_head(Config(head=kind, head_width=9), BINARY, moments, INPUTS)
        with torch.no_grad():
            head.output.weight.zero_()
        share = torch.sigmoid(head.logits(random(1, INPUTS), keys(1, 6)))[0]
        np.testing.assert_allclose(share.detach().numpy(), moments.mean, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("features", [1, 5])
@pytest.mark.parametrize("kind", KINDS)
def test_a_head_is_a_distribution_over_steps(kind, features):
    head, x = make_head(kind, features), all_steps(features)
    for h in random(5, INPUTS):
        total = head.log_prob(h.expand(len(x), -1), x).double().logsumexp(0).item()
        assert total == pytest.approx(0.0, abs=1e-5)


@pytest.mark.parametrize("layers", [0, 1, 3])
def test_prefixes_give_what_a_loop_over_keys_gives(layers):
    """Value and gradients; among the steps are silence and all keys at once."""
    head = make_head("autoregressive", 6, layers, gain=1.5)
    h, x = random(20, INPUTS).requires_grad_(), keys(20, 6)
    x[3], x[4] = 0.0, 1.0
    wanted = [h, *head.parameters()]
    expected, found = naive_logits(head, h, x), head.logits(h, x)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    log_prob = -torch.nn.functional.softplus(torch.where(x > 0, -expected, expected)).sum(1)
    torch.testing.assert_close(head.log_prob(h, x), log_prob, rtol=1e-4, atol=1e-4)
    for ours, theirs in zip(
        torch.autograd.grad(head.log_prob(h, x).sum(), wanted), torch.autograd.grad(log_prob.sum(), wanted), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)


def test_a_logit_has_a_gradient_by_keys_below_alone():
    head, x = make_head("autoregressive", 8), keys(30, 8)
    h = random(30, INPUTS)

    def logits(step):
        return head.logits(h[:1], step[None])[0]

    reached = torch.zeros(8, 8, dtype=torch.bool)
    for step in x:
        gradient = torch.autograd.functional.jacobian(logits, step)  # [k, j]
        assert not gradient.triu().any()
        reached |= gradient != 0
    assert torch.equal(reached, torch.ones(8, 8, dtype=torch.bool).tril(-1))


def test_many_prefixes_are_scored_in_parts_to_the_same_gradients(monkeypatch):
    head, x = make_head("autoregressive", 5, layers=2).requires_grad_(), keys(40, 5)
    gradients = []
    for most in (2**15, 30):
        monkeypatch.setattr("vae.models.heads._MOST_ROWS", most)
        h = random(40, INPUTS).requires_grad_()
        scores = head.log_prob(h, x, int(x.sum()))
        gradients.append([scores, *torch.autograd.grad(scores.sum(), [h, *head.parameters()])])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


@torch.no_grad()
def test_without_gradients_many_prefixes_are_scored_in_parts_too(monkeypatch):
    head, x, h, rows = make_head("autoregressive", 5, layers=2), keys(400, 5), random(400, INPUTS), []
    whole = head.log_prob(h, x)
    monkeypatch.setattr("vae.models.heads._MOST_ROWS", 400)
    head.output.register_forward_pre_hook(lambda _, inputs: rows.append(len(inputs[0])))
    torch.testing.assert_close(head.log_prob(h, x), whole)
    assert len(rows) > 2
    assert max(rows) <= 400 + 256  # rounded up


@torch.no_grad()
def test_turning_a_key_changes_the_logits_above_it_alone():
    head = make_head("autoregressive", 8)
    h, x = random(30, INPUTS), keys(30, 8)
    before = head.logits(h, x)
    for key in range(8):
        turned = x.clone()
        turned[:, key] = 1 - turned[:, key]
        after = head.logits(h, turned)
        torch.testing.assert_close(after[:, : key + 1], before[:, : key + 1], rtol=1e-5, atol=1e-5)
        assert not torch.isclose(after[:, key + 1 :], before[:, key + 1 :]).all(0).any()


@torch.no_grad()
@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("kind", KINDS)
def test_draws_follow_the_logits_over_the_temperature(kind, temperature):
    """Counts of all 2^4 steps, against the product over keys of sigmoid(logit / temperature)."""
    head, x, count = make_head(kind, 4), all_steps(4), 20_000
    for seed, h in enumerate(random(2, INPUTS)):
        logits = head.logits(h.expand(16, -1), x).double() / temperature
        p = torch.sigmoid(torch.where(x > 0, logits, -logits)).prod(1)
        draws = head.sample(h.expand(2, count // 2, -1), temperature, torch.Generator().manual_seed(seed))
        assert draws.shape == (2, count // 2, 4)
        index = (draws.view(count, 4) @ torch.tensor([8.0, 4.0, 2.0, 1.0])).long()
        assert chi_square(torch.bincount(index, minlength=16), p) > 1e-3


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_cold_draws_take_the_likelier_value_of_key_after_key(kind):
    head, h = make_head(kind, 12), random(40, INPUTS)
    x = head.sample(h, 1e-6, torch.Generator().manual_seed(0))
    assert torch.equal(x, (head.logits(h, x) > 0).float())
    assert 0.05 < x.mean() < 0.95


@pytest.mark.parametrize("kind", KINDS)
def test_draws_depend_on_the_generator_alone(kind):
    head, h = make_head(kind, 6, gain=1.0), random(50, INPUTS)
    draws = []
    for process, seed in ((0, 5), (1, 5), (1, 6)):
        torch.manual_seed(process)
        draws.append(head.sample(h, 1.0, torch.Generator().manual_seed(seed)))
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


@pytest.mark.parametrize("layers", [0, 2])
def test_the_heads_dropout_acts_in_training_only(layers):
    spec = DataSpec("binary", 6, 1, None, 100.0, 1, 1)
    config = Config(head="autoregressive", head_width=30, head_layers=layers, head_dropout=0.5)
    head, h, x = build_head(config, spec, None, INPUTS), random(4, INPUTS), keys(4, 6)
    assert not torch.equal(head.log_prob(h, x), head.log_prob(h, x))
    head.eval()
    assert torch.equal(head.log_prob(h, x), head.log_prob(h, x))
