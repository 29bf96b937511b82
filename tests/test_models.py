"""vae.models: likelihoods against torch.distributions and by counting, causality, samples, the floor of a scale."""

import itertools

import numpy as np
import pytest
import torch
from tiny import BINARY, REAL, SMALL, SPECS, make_batch, make_corpus, make_model
from torch.distributions import Bernoulli as BernoulliOracle
from torch.distributions import Independent, Normal

from vae.config import Config
from vae.corpus import Split
from vae.encoding import DataSpec
from vae.models.likelihood import SCALE_FLOOR, Bernoulli, Gaussian, Moments, build_likelihood, moments_of
from vae.models.registry import build_model
from vae.windows import Batch

FAMILIES = list(SMALL)
MOMENTS = Moments(np.array([0.2, 0.5, 0.9]), np.array([0.1, 1.0, 20.0]))


def codes(model, count, seed=0):
    return torch.randn(count, model.config.latent_dim, generator=torch.Generator().manual_seed(seed))


def total(log_likelihoods):
    return torch.cat(log_likelihoods).double().logsumexp(0).item()


# Likelihoods


def test_bernoulli_is_that_of_torch_distributions():
    logits = 5 * torch.randn(4, 7, 3, generator=torch.Generator().manual_seed(0))
    x = (torch.rand(4, 7, 3, generator=torch.Generator().manual_seed(1)) < 0.5).float()
    expected = Independent(BernoulliOracle(logits=logits.double()), 1).log_prob(x.double())
    found = Bernoulli(3, None).log_prob(logits, x)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)


def test_bernoulli_is_finite_and_right_at_extreme_logits():
    found = Bernoulli(1, None).log_prob(torch.tensor([[100.0], [-100.0]]), torch.tensor([[1.0], [1.0]]))
    assert found.tolist() == [0.0, -100.0]


@pytest.mark.parametrize("unit_interval", [False, True])
def test_gaussian_is_that_of_torch_distributions(unit_interval):
    likelihood = Gaussian(3, MOMENTS, unit_interval)
    parameters = torch.randn(4, 7, 3, generator=torch.Generator().manual_seed(0))
    x = torch.rand(4, 7, 3, generator=torch.Generator().manual_seed(1))
    center, scale = (torch.from_numpy(part).float() for part in MOMENTS)  # the scale starts at train's
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
    np.testing.assert_allclose(moments.std, [1.0, 0.01])
    constant = moments_of(Split(np.full((3, 2), 7.0, np.float32), np.ones(3, np.int64)), REAL)
    assert (constant.std > 0).all()


# Families


@pytest.mark.parametrize("family", FAMILIES)
def test_a_binary_model_is_a_distribution_over_windows(family):
    """The probabilities of all 2^6 windows of 3 steps of 2 keys sum to 1, whatever the code."""
    spec = DataSpec("binary", 2, 1, None, 100.0, 3, 3)
    model = build_model(Config.for_data(spec, SMALL[family]), spec).eval()
    windows = torch.tensor(list(itertools.product([0.0, 1.0], repeat=6))).view(64, 3, 2)
    batch = Batch(windows, torch.ones(64, 3, dtype=torch.bool), torch.tensor([[1.0, 0.0]]).expand(64, 2))
    with torch.no_grad():
        for z in codes(model, 5):
            assert total([model.log_likelihood(batch, z.expand(64, -1))]) == pytest.approx(0.0, abs=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", SPECS)
def test_what_lies_in_the_padding_is_not_scored(kind, family):
    model = make_model(kind, family, window=1 if kind != "binary" else 8)
    window = model.config.window
    batch = make_batch(kind, window, [window, max(1, window - 3), 1])
    z = codes(model, 3)
    noisy = torch.where(batch.mask[:, :, None], batch.x, 1.0)
    with torch.no_grad():
        expected = model.log_likelihood(batch, z)
        assert torch.equal(model.log_likelihood(Batch(noisy, batch.mask, batch.previous), z), expected)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_log_likelihood_is_the_sum_over_steps(family):
    model = make_model("binary", family)
    batch, z = make_batch("binary", 8, [8, 8]), codes(model, 2)
    with torch.no_grad():
        parts = [
            model.log_likelihood(Batch(batch.x, batch.mask & (torch.arange(8) == step), batch.previous), z)
            for step in range(8)
        ]
        torch.testing.assert_close(sum(parts), model.log_likelihood(batch, z), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("step", [0, 3, 7])
def test_the_recurrent_decoder_is_causal(step):
    model = make_model("binary", "recurrent")
    batch, z = make_batch("binary", 8, [8, 8]), codes(model, 2)
    changed = batch.x.clone()
    changed[:, step] = 1 - changed[:, step]

    def scores(x, mask):
        return model.log_likelihood(Batch(x, mask.expand(2, 8), batch.previous), z)

    with torch.no_grad():
        earlier, later = torch.arange(8) < step, torch.arange(8) > step
        assert torch.equal(scores(batch.x, earlier), scores(changed, earlier))
        if step < 7:
            assert not torch.equal(scores(batch.x, later), scores(changed, later))


def test_only_the_recurrent_decoder_reads_the_step_before_the_window():
    for family, reads in (("dense", False), ("recurrent", True)):
        model = make_model("binary", family)
        batch, z = make_batch("binary", 8, [8, 8]), codes(model, 2)
        other = Batch(batch.x, batch.mask, 1 - batch.previous)
        with torch.no_grad():
            assert torch.equal(model.log_likelihood(batch, z), model.log_likelihood(other, z)) != reads
            assert torch.equal(model.encode(batch).mean, model.encode(other).mean)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", SPECS)
def test_the_code_reaches_the_output_and_the_music_reaches_the_code(kind, family):
    model = make_model(kind, family)
    window = model.config.window
    batch = make_batch(kind, window, [window])
    posterior = model.encode(batch)
    assert posterior.mean.shape == posterior.std.shape == (1, 4)
    assert (posterior.std > 0).all()
    z = posterior.mean.detach().requires_grad_()
    model.log_likelihood(batch, z).sum().backward()
    assert (z.grad != 0).all()
    x = batch.x.clone().requires_grad_()
    model.encode(Batch(x, batch.mask, batch.previous)).mean.sum().backward()
    assert (x.grad != 0).any(dim=2).all()  # every step of the window


@pytest.mark.parametrize("family", FAMILIES)
def test_every_weight_gets_a_gradient(family):
    model = make_model("binary", family).train()
    batch = make_batch("binary", 8, [8] * 8)
    mean, std = model.encode(batch)
    (model.log_likelihood(batch, mean + std).sum() + std.sum()).backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", ["binary", "unit"])
def test_an_untrained_decoder_starts_near_the_marginal(kind, family):
    corpus = make_corpus(kind)
    moments = moments_of(corpus.splits["train"], corpus.spec)
    model = build_model(Config.for_data(corpus.spec, SMALL[family]), corpus.spec, moments).eval()
    with torch.no_grad():
        model.output.weight.zero_()
        if kind == "binary":
            draws = model.sample(codes(model, 2000), 1.0, torch.Generator().manual_seed(0))
            share = draws.mean((0, 1)).double().numpy()
            # five standard errors of 2000 windows of 8 steps
            assert (np.abs(share - moments.mean) < 5 * moments.std / np.sqrt(16_000)).all()
        else:
            draws = model.sample(codes(model, 3), 1.0, torch.Generator())
            np.testing.assert_allclose(draws[:, 0].double().numpy(), np.tile(moments.mean, (3, 1)), rtol=1e-5)


@pytest.mark.parametrize("depth", [1, 2, 3, 5])
def test_dense_layers_are_as_many_and_as_wide_as_configured(depth):
    model = make_model("binary", "dense", dense_depth=depth, dropout=0.1)
    widths = [layer.out_features for layer in model.encoder if isinstance(layer, torch.nn.Linear)]
    assert widths == [layer.out_features for layer in model.decoder if isinstance(layer, torch.nn.Linear)]
    assert widths == {1: [12], 2: [12, 12], 3: [12, 24, 12], 5: [12, 24, 24, 24, 12]}[depth]


@pytest.mark.parametrize("family", FAMILIES)
def test_dropout_acts_in_training_only(family):
    model = make_model("binary", family, dropout=0.5)
    batch, z = make_batch("binary", 8, [8, 8]), codes(model, 2)
    with torch.no_grad():
        assert torch.equal(model.log_likelihood(batch, z), model.log_likelihood(batch, z))
        assert torch.equal(model.encode(batch).mean, model.encode(batch).mean)
        model.train()
        assert not torch.equal(model.log_likelihood(batch, z), model.log_likelihood(batch, z))
        assert not torch.equal(model.encode(batch).mean, model.encode(batch).mean)


# Samples


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", SPECS)
@torch.no_grad()
def test_samples_have_the_datas_shape_and_depend_on_the_generator_alone(kind, family):
    model = make_model(kind, family)
    z, shape = codes(model, 3), (3, model.config.window, model.spec.features)
    torch.manual_seed(0)
    first = model.sample(z, 1.0, torch.Generator().manual_seed(5))
    torch.manual_seed(1)
    assert first.shape == shape
    assert torch.equal(model.sample(z, 1.0, torch.Generator().manual_seed(5)), first)
    if kind == "binary":
        assert set(first.unique().tolist()) == {0.0, 1.0}
        assert not torch.equal(model.sample(z, 1.0, torch.Generator().manual_seed(6)), first)


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_samples_at_low_temperature_are_the_most_likely_keys(family):
    model = make_model("binary", family)
    z = codes(model, 6)
    cold = model.sample(z, 1e-6, torch.Generator().manual_seed(0))
    assert torch.equal(model.sample(z, 1e-6, torch.Generator().manual_seed(1)), cold)
    # Turning any key of the last step, which no other step sees, makes a piece less likely.
    mask = torch.ones(6, 8, dtype=torch.bool)
    best = model.log_likelihood(Batch(cold, mask, torch.zeros(6, 6)), z)
    for key in range(6):
        turned = cold.clone()
        turned[:, -1, key] = 1 - turned[:, -1, key]
        assert (model.log_likelihood(Batch(turned, mask, torch.zeros(6, 6)), z) < best).all()


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_a_high_temperature_tosses_coins(family):
    model = make_model("binary", family)
    share = model.sample(codes(model, 2000), 1e6, torch.Generator().manual_seed(0)).mean().item()
    assert share == pytest.approx(0.5, abs=5 * 0.5 / np.sqrt(2000 * 48))


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_samples_follow_the_likelihood(family):
    """Frequencies of the 16 windows of 2 steps of 2 keys, against exp(log_likelihood)."""
    spec = DataSpec("binary", 2, 1, None, 100.0, 2, 2)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = build_model(Config.for_data(spec, SMALL[family]), spec).eval()
    z, count = codes(model, 1), 20_000
    draws = model.sample(z.expand(count, -1), 1.0, torch.Generator().manual_seed(0)).view(count, 4)
    index = (draws @ torch.tensor([8.0, 4.0, 2.0, 1.0])).long()
    frequency = torch.bincount(index, minlength=16).double() / count
    windows = torch.tensor(list(itertools.product([0.0, 1.0], repeat=4))).view(16, 2, 2)
    batch = Batch(windows, torch.ones(16, 2, dtype=torch.bool), torch.zeros(16, 2))
    p = model.log_likelihood(batch, z.expand(16, -1)).double().exp()
    assert ((frequency - p).abs() < 5 * (p * (1 - p) / count).sqrt()).all()
