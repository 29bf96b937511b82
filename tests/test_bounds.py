"""vae.bounds: the metric against loops over windows and torch.distributions, and what must not change it."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats
from tiny import BINARY, CPU, REAL, SPECS, make_corpus, make_model, params_of, randomise, sample
from torch.distributions import Bernoulli, Independent, Normal, kl_divergence

from vae import bounds
from vae.bounds import evaluate, importance_weighted_bound, marginal_elbo, reconstruction
from vae.config import Config
from vae.corpus import Split
from vae.models.dense import Dense
from vae.models.likelihood import Moments, moments_of
from vae.models.registry import FAMILIES
from vae.ranking import is_feasible
from vae.windows import Batch, Songs

METRICS = {"elbo", "elbo_per_song", "log_likelihood", "kl", "code_gain", "active_units"}


@pytest.fixture
def songs():
    return Songs(make_corpus(songs=12).splits["valid"], CPU)


def make(family, **params):
    return randomise(make_model("binary", family, **params), gain=1.0)


@pytest.mark.parametrize("family", ["dense", "hierarchical", "recurrent"])
def test_no_batch_is_larger_than_asked_with_what_a_model_pads(songs, monkeypatch, family):
    monkeypatch.setattr(bounds, "_BATCH_STEPS", 24)
    model, sizes = make(family), []
    states = model.states

    def watched(batch, z):
        sizes.append(batch.mask.numel())
        return states(batch, z)

    monkeypatch.setattr(model, "states", watched)
    evaluate(model, songs, 3)
    assert max(sizes) <= 24


# Loops


def window_by_window(model, songs, seed):
    """Each window of each song alone, cut by hand, with the generator of its noise."""
    for song, (start, length) in enumerate(zip(songs.starts.tolist(), songs.lengths.tolist(), strict=True)):
        values = songs.values[start : start + length].float()
        for number, at in enumerate(range(0, length, model.config.window)):
            x = values[at : at + model.config.window]
            steps = model.padded_to(len(x))
            batch = Batch(
                torch.cat([x, torch.zeros(steps - len(x), x.shape[1])])[None],
                (torch.arange(steps) < len(x))[None],
                values[at - 1 : at] if at else torch.zeros(1, x.shape[1]),
                torch.tensor([at == 0]),
                torch.zeros(1, dtype=torch.long),
            )
            philox = np.random.Philox(key=[seed, song], counter=[0, 0, 0, number])
            yield song, batch, np.random.Generator(philox)


def terms_of(model, batch, generator):
    shape = (int(batch.lengths), model.config.latent_dim) if model.code_unit == "step" else (model.config.latent_dim,)
    noise = torch.zeros(model.code_shape(*batch.mask.shape))
    noise[0, : shape[0]] = torch.from_numpy(generator.standard_normal(shape, dtype=np.float32))
    return model.terms(batch, noise)


def codes_in_order(model, parts, of):
    """Of all windows, a row a code: the drawn codes or the posteriors' means."""
    found = []
    for batch, code in parts:
        codes = of(code)
        found.append(codes[0, : int(batch.lengths)] if model.code_unit == "step" else codes)
    return torch.cat(found)


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
def test_the_metric_is_a_loop_over_windows(songs, family):
    model = make(family)
    found = evaluate(model, songs, 3)
    by_song, sums, parts = np.zeros(12), np.zeros(2), []
    for song, batch, generator in window_by_window(model, songs, 3):
        log_likelihood, code = terms_of(model, batch, generator)
        by_song[song] += (log_likelihood - code.kl).item()
        sums += [log_likelihood.item(), code.kl.item()]
        parts.append((batch, code))
    drawn = codes_in_order(model, parts, lambda code: code.z)
    others, at, gained = drawn.roll(len(drawn) // 2, 0), 0, sums[0]
    for batch, code in parts:
        count = int(batch.lengths) if model.code_unit == "step" else 1
        other = torch.zeros_like(code.z)
        other[0, : count if model.code_unit == "step" else None] = others[at : at + count].squeeze(0)
        gained -= model.log_likelihood(batch, other).item()
        at += count
    steps = songs.steps
    assert found["log_likelihood"] == pytest.approx(sums[0] / steps, rel=1e-5)
    assert found["kl"] == pytest.approx(sums[1] / steps, rel=1e-4)
    assert found["elbo"] == pytest.approx(by_song.sum() / steps, rel=1e-5)
    assert found["elbo_per_song"] == pytest.approx((by_song / songs.lengths.numpy()).mean(), rel=1e-5)
    assert found["code_gain"] == pytest.approx(gained / steps, rel=1e-3, abs=1e-5)
    variance = codes_in_order(model, parts, lambda code: code.posterior.mean).var(0)
    assert found["active_units"] == (variance > 0.01).sum()
    assert found["kl"] > 0.01


@torch.no_grad()
@pytest.mark.parametrize("samples", [1, 5])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_importance_weighted_bound_is_a_loop_over_windows_and_draws(songs, family, samples):
    model, total = make(family), 0.0
    for _, batch, generator in window_by_window(model, songs, 3):
        weights = []
        for _ in range(samples):
            log_likelihood, code = terms_of(model, batch, generator)
            weights.append((log_likelihood + code.log_ratio).item())
        total += np.logaddexp.reduce(weights) - math.log(samples)
    assert importance_weighted_bound(model, songs, 3, samples) == pytest.approx(total / songs.steps, rel=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_importance_with_one_sample_is_the_elbo_on_average_and_more_raise_it(songs, family):
    model, seeds = make(family), range(20)
    elbo = np.array([evaluate(model, songs, seed)["elbo"] for seed in seeds])
    one, four, many = (
        np.array([importance_weighted_bound(model, songs, seed, samples) for seed in seeds]) for samples in (1, 4, 16)
    )
    # They share the noise; the ELBO has the KL in closed form, the other as log q - log p.
    assert (one - elbo).mean() == pytest.approx(0.0, abs=4 * (one - elbo).std() / math.sqrt(len(seeds)))
    assert one.mean() < four.mean() < many.mean()


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
def test_reconstruction_is_a_loop_over_steps(songs, family):
    model = make(family)
    found, right = reconstruction(model, songs, 0), 0
    for _, batch, _ in window_by_window(model, songs, 0):
        z = model.code(batch, torch.zeros(model.code_shape(*batch.mask.shape))).posterior.mean
        states = model.states(batch, z)[0]
        for h, step in zip(states[: int(batch.lengths)], batch.x[0], strict=False):
            right += all((model.head.logits(h[None], step[None])[0, k] > 0) == step[k] for k in range(6))
    assert found["accuracy_teacher_forced"] == pytest.approx(right / songs.steps, abs=1e-9)
    assert 0 <= found["accuracy_sampled"] <= 1


@torch.no_grad()
@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "hierarchical"])
def test_sampled_steps_come_back_as_often_as_the_likelihood_says(family):
    """In windows of one step: P(all keys right) = p(x|z), given the step before."""
    runs = 20
    for seed in range(20):  # to the first weights by which the step before matters
        model = randomise(make_model("binary", family, window=1), seed, gain=2.0)
        x = sample(model, 60, 12, 1.0, torch.Generator().manual_seed(0))  # the model's own songs are likely ones
        songs = Songs(Split(x.flatten(0, 1).numpy().astype(np.uint8), np.full(60, x.shape[1])), CPU)
        batch = songs.batch(songs.partition(1), 1)
        z = model.code(batch, torch.zeros(model.code_shape(*batch.mask.shape))).posterior.mean
        p = model.log_likelihood(batch, z).double().exp().numpy()
        error = math.sqrt((p * (1 - p)).mean() / len(p) / runs)
        begun = model.log_likelihood(replace(batch, begins=torch.ones_like(batch.begins)), z).exp().mean().item()
        if family == "dense" or abs(begun - p.mean()) > 6 * error:  # dense is not told
            break
    else:
        pytest.fail("the step before never matters")
    found = [reconstruction(model, songs, seed)["accuracy_sampled"] for seed in range(runs)]
    assert np.mean(found) == pytest.approx(p.mean(), abs=4 * error)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_that_is_certain_and_right_reconstructs_all(family):
    row = np.array([1, 0, 1, 1, 0, 0], np.uint8)
    values = np.tile(row, (25, 1))
    values[3, 4], values[21, 0] = 1, 0  # a wrong key in two of 25 steps
    model = make(family)
    with torch.no_grad():
        model.head.output.weight.zero_()
        model.head.output.bias.copy_(torch.from_numpy(100.0 * row - 50.0))
    found = reconstruction(model, Songs(Split(values, np.array([11, 14])), CPU), 0)
    assert found == {"accuracy_teacher_forced": 23 / 25, "accuracy_sampled": 23 / 25}


# torch.distributions


@pytest.mark.parametrize("kind", SPECS)
def test_the_metric_is_that_of_torch_distributions(kind):
    model, split, drawn = make_model(kind, "dense", head="independent"), make_corpus(kind).splits["valid"], []
    songs = Songs(split, CPU)
    terms = model.terms
    model.terms = lambda batch, noise: drawn.append((batch, terms(batch, noise))) or drawn[-1][1]
    found = evaluate(model, songs, 0)
    ((batch, (_, code)),) = drawn
    with torch.no_grad():
        parameters, posterior = model.states(batch, code.z).double(), model.encode(batch)
        scale = torch.ones(()) if kind == "binary" else model.head.likelihood.scale()
    if kind == "binary":
        x = Independent(Bernoulli(logits=parameters), 1)
    else:
        x = Independent(Normal(parameters.sigmoid() if kind == "unit" else parameters, scale.double()), 1)
    log_likelihood = x.log_prob(batch.x.double())[batch.mask].sum().item() / len(split.values)
    q = Normal(posterior.mean.double(), posterior.std.double())
    kl = kl_divergence(q, Normal(torch.zeros(4).double(), torch.ones(4).double())).sum().item() / len(split.values)
    assert found["log_likelihood"] == pytest.approx(log_likelihood, rel=1e-5)
    assert found["kl"] == pytest.approx(kl, rel=1e-5)
    assert found["elbo"] == pytest.approx(log_likelihood - kl, rel=1e-5)


# Invariances


@pytest.mark.parametrize("family", FAMILIES)
def test_the_size_of_an_evaluation_batch_does_not_matter(songs, family, monkeypatch):
    model = make(family)

    def all_of_them():
        bounds = evaluate(model, songs, 0) | {"iwae": importance_weighted_bound(model, songs, 0, 3)}
        return bounds | reconstruction(model, songs, 0)

    expected = all_of_them()
    for steps in (1, 30, 70):
        monkeypatch.setattr(bounds, "_BATCH_STEPS", steps)
        assert all_of_them() == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_songs_that_are_scored_one_by_one_are_written_together(songs, monkeypatch):
    model, written = make("recurrent"), []
    decode = model.decode
    model.decode = lambda z, *how: written.append(len(z)) or decode(z, *how)
    monkeypatch.setattr(bounds, "_BATCH_STEPS", 1)
    reconstruction(model, songs, 0)
    assert written == [len(songs.partition(model.scored))]


@pytest.mark.parametrize("family", FAMILIES)
def test_other_songs_have_no_say(songs, family):
    """What songs add to the sum is the same whatever lies before them; nor has the process's own randomness a say."""
    model, kept = make(family), int(songs.starts[7])
    loud, silent = songs.values[:-1].numpy(), songs.values[:-1].numpy().copy()
    silent[:kept] = 0
    for bound in (
        lambda songs: evaluate(model, songs, 0)["elbo"],
        lambda songs: importance_weighted_bound(model, songs, 0, 2),
    ):
        added = []
        for seed, values in enumerate((loud, silent)):
            torch.manual_seed(seed)
            lengths = songs.lengths.numpy()
            whole, first = Songs(Split(values, lengths), CPU), Songs(Split(values[:kept], lengths[:7]), CPU)
            added.append(bound(whole) * whole.steps - bound(first) * first.steps)
        assert added[0] == pytest.approx(added[1], rel=1e-4)


def test_noise_depends_on_the_seed(songs):
    model = make("sequential")
    found = {evaluate(model, songs, seed)["elbo"] for seed in range(5)}
    assert len(found) == 5
    assert max(found) - min(found) < 1.0


@pytest.mark.parametrize("family", ["recurrent", "sequential"])
def test_evaluation_is_repeatable_and_leaves_no_trace(songs, family):
    model = make_model("binary", family, dropout=0.5, step_dropout=0.5, encoder_dropout=0.5, head_dropout=0.5).train()
    state = torch.get_rng_state()

    def all_of_them():
        return evaluate(model, songs, 0), importance_weighted_bound(model, songs, 0, 2), reconstruction(model, songs, 0)

    first = all_of_them()
    assert all_of_them() == first
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    assert set(first[0]) == METRICS


def test_evaluation_knows_no_beta_and_no_free_bits(songs):
    plain = evaluate(make_model("binary", "dense"), songs, 0)
    other = make_model("binary", "dense", beta=7.0, free_bits=3.0, beta_warmup=99, rate_target=0.0)
    assert evaluate(other, songs, 0) == plain


# What the code does


@pytest.mark.parametrize("family", FAMILIES)
def test_a_decoder_that_ignores_its_code_gains_nothing_by_it(songs, family):
    model = make(family)
    with torch.no_grad():
        model.head.read.weight.zero_()
    found = evaluate(model, songs, 0)
    assert found["code_gain"] == pytest.approx(0.0, abs=1e-6)
    assert found["kl"] > 0


@pytest.mark.parametrize("family", FAMILIES)
def test_a_code_that_says_the_same_of_all_music_gains_nothing(songs, family):
    """A KL met by an offset: q far from the prior, and equal for all x."""
    model = make(family)
    posterior = model.correction if family == "sequential" else model.posterior
    with torch.no_grad():
        posterior.weight.zero_()
        posterior.bias.copy_(torch.tensor([2.0] * 4 + [-6.0] * 4))
    found = evaluate(model, songs, 0)
    assert found["kl"] > 1.0
    assert found["code_gain"] == pytest.approx(0.0, abs=0.01)
    assert found["active_units"] == 0
    assert not is_feasible(found, min_kl=0.1)


def test_what_a_learned_prior_foretells_is_no_gain_of_the_code(songs):
    """Each step's code is that of the prior, which depends on the steps before."""
    model = make("sequential")
    with torch.no_grad():
        model.prior.weight.normal_(0.0, 1.0, generator=torch.Generator().manual_seed(0))
        model.prior.weight[4:] = 0.0
        model.prior.bias[4:] = -6.0  # a narrow prior, wherever its mean is
        model.correction.weight.zero_()
        model.correction.bias.zero_()
    found = evaluate(model, songs, 0)
    assert found["kl"] == pytest.approx(0.0, abs=1e-3)
    assert found["code_gain"] == pytest.approx(0.0, abs=0.01)


def test_a_single_window_has_no_active_unit_and_is_compared_with_a_draw_from_the_prior():
    songs = Songs(Split(np.ones((5, 6), np.uint8), np.array([5])), CPU)
    model = randomise(make_model("binary", "dense"))
    found = evaluate(model, songs, 0)
    assert found["active_units"] == 0
    assert found["code_gain"] != 0.0
    assert found == evaluate(model, songs, 0)
    assert found["elbo"] == found["elbo_per_song"]


# The baseline


def test_marginal_by_hand():
    """Train 3 of 4 and 0 of 4, with add-one smoothing 4/6 and 1/6; two steps of one song are scored."""
    train = Split(np.array([[1, 0], [1, 0], [1, 0], [0, 0]], np.uint8), np.array([4]))
    scored = Split(np.array([[1, 0], [0, 1]], np.uint8), np.array([2]))
    expected = (math.log(4 / 6) + math.log(5 / 6) + math.log(2 / 6) + math.log(1 / 6)) / 2
    assert marginal_elbo(moments_of(train, BINARY), scored, BINARY) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("kind", SPECS)
def test_marginal_is_that_of_scipy(kind):
    corpus = make_corpus(kind)
    moments, x = moments_of(corpus.splits["train"], corpus.spec), corpus.splits["test"].values.astype(np.float64)
    oracle = (
        stats.bernoulli.logpmf(x, moments.mean) if kind == "binary" else stats.norm.logpdf(x, moments.mean, moments.std)
    )
    found = marginal_elbo(moments, corpus.splits["test"], corpus.spec)
    assert found == pytest.approx(oracle.sum(1).mean(), rel=1e-9)


@pytest.mark.parametrize(("family", "whole"), [("recurrent", 1), ("sequential", 1), ("transformer", 2), ("dense", 2)])
def test_songs_longer_than_any_of_train_are_scored_whole_where_those_are(family, whole):
    longest = BINARY.longest_song
    held_out = Songs(Split(np.zeros((longest + 3, BINARY.features), np.uint8), np.array([longest + 3])), CPU)
    for window, windows in ((longest, whole), (longest - 1, 2)):
        assert len(held_out.partition(make_model("binary", family, window=window).scored)) == windows


@pytest.mark.parametrize("head", ["independent", "autoregressive"])
def test_marginal_is_what_a_decoder_without_a_code_reaches(head):
    corpus = make_corpus("binary")
    moments = moments_of(corpus.splits["train"], corpus.spec)
    model = Dense(Config.for_data(corpus.spec, params_of("binary", "dense", head=head)), corpus.spec, moments)
    with torch.no_grad():
        (model.output if head == "independent" else model.head.output).weight.zero_()
    found = evaluate(model, Songs(corpus.splits["valid"], CPU), 0)["log_likelihood"]
    assert found == pytest.approx(marginal_elbo(moments, corpus.splits["valid"], corpus.spec), rel=1e-5)


def test_the_marginal_of_a_gaussian_with_the_fitted_moments_is_minus_its_entropy():
    values = np.random.default_rng(0).normal(3.0, 2.0, (1000, 1)).astype(np.float32)
    split = Split(values, np.ones(1000, np.int64))
    std = values.std(dtype=np.float64)
    moments = Moments(values.mean(axis=0, dtype=np.float64), np.array([std]), np.array([True]))
    assert marginal_elbo(moments, split, REAL) == pytest.approx(-stats.norm(scale=std).entropy(), rel=1e-9)
