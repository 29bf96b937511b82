"""vae.models: draws agree with scores, causality, what padding must not change, what reaches what."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import (
    CASES,
    HEADED,
    SPECS,
    each_tensor,
    make_batch,
    make_corpus,
    make_model,
    noise_for,
    params_of,
    randomise,
    sample,
)
from torch.distributions import Normal, kl_divergence

from vae.config import Config
from vae.loss import objective
from vae.models.base import as_normal
from vae.models.likelihood import moments_of
from vae.models.registry import FAMILIES, FAMILIES_WITH, build_model
from vae.windows import Batch

# Hyperparameters


class Watched(Config):
    """Remembers which of its values were read."""

    def __getattribute__(self, name):
        if name in Config.__dataclass_fields__:
            object.__getattribute__(self, "__dict__").setdefault("read", set()).add(name)
        return super().__getattribute__(name)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_reads_the_hyperparameters_that_it_is_said_to_use(family):
    config = Watched.for_data(SPECS["binary"], params_of("binary", family))
    everywhere = {"window", "latent_dim", "transpose", "dropout", "head", "head_width", "head_layers", "head_dropout"}
    vars(config)["read"].clear()
    build_model(config, SPECS["binary"])
    config.shown  # noqa: B018  # which training reads, and through it `crop`
    own = {name for name, families in FAMILIES_WITH.items() if family in families}
    assert vars(config)["read"] - {"family"} == own | everywhere


# Samples


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
def test_cold_draws_are_what_scoring_finds_likelier(family):
    """Step by step and key by key, in longer windows, wherever they lie; all in the data's own key."""
    model = randomise(make_model("binary", family), gain=3.0)
    batch = make_batch("binary", model.padded_to(8), [8] * 40)
    z = 2 * noise_for(model, batch)
    cold = model.decode(z, batch.x.shape[1], 1e-6, torch.Generator().manual_seed(0), batch)
    assert torch.equal(cold, model.decode(z, batch.x.shape[1], 1e-6, torch.Generator().manual_seed(1), batch))
    logits = model.head.logits(model.states(replace(batch, x=cold), z).flatten(0, 1), cold.flatten(0, 1))
    assert torch.equal((logits > 0).float(), cold.flatten(0, 1))
    assert len(cold.flatten(0, 1).unique(dim=0)) > 5


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
def test_a_high_temperature_tosses_coins(family):
    model = make_model("binary", family)
    share = sample(model, 2000, 8, 1e6, torch.Generator().manual_seed(0)).mean().item()
    assert share == pytest.approx(0.5, abs=5 * 0.5 / np.sqrt(2000 * 48))


@torch.no_grad()
@pytest.mark.parametrize(("kind", "family"), CASES)
def test_samples_have_the_datas_shape_and_depend_on_the_generator_alone(kind, family):
    model = make_model(kind, family)
    steps = min(model.config.window, 7)
    torch.manual_seed(0)
    first = sample(model, 3, steps, 1.0, torch.Generator().manual_seed(5))
    torch.manual_seed(1)
    assert first.shape == (3, steps, model.spec.features)
    assert torch.equal(sample(model, 3, steps, 1.0, torch.Generator().manual_seed(5)), first)
    assert not torch.equal(sample(model, 3, steps, 1.0, torch.Generator().manual_seed(6)), first)
    if kind == "binary":
        assert set(first.unique().tolist()) == {0.0, 1.0}


# Time


@pytest.mark.parametrize(("family", "head"), HEADED)
def test_a_state_has_a_gradient_by_earlier_steps_alone(family, head):
    model = randomise(make_model("binary", family, head=head))
    batch = make_batch("binary", model.padded_to(8), [8, 8])
    z = noise_for(model, batch)
    x, previous = batch.x.requires_grad_(), batch.previous.requires_grad_()
    states = model.states(replace(batch, x=x, previous=previous), z)
    for now in range(8):
        if family == "dense":
            assert not states.requires_grad or not any(
                part is not None and part.any()
                for part in torch.autograd.grad(states.sum(), (x, previous), retain_graph=True, allow_unused=True)
            )
            continue
        by_x, by_previous = torch.autograd.grad(states[:, now].square().sum(), (x, previous), retain_graph=True)
        assert not by_x[:, now:].any()
        bar = now // 3 * 3 if family == "hierarchical" else 1
        assert not by_x[:, : bar - 1].any() or bar < 2  # bars know of each other by the code alone
        assert by_x[:, max(0, bar - 1) : now].any(2).all()
        reads = family != "hierarchical" or now < 3
        assert by_previous.any(1).tolist() == [False, reads]  # the first begins its song


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
def test_terms_of_earlier_steps_stay_when_later_ones_change(family):
    model = randomise(make_model("binary", family))
    batch = make_batch("binary", model.padded_to(8), [8, 8])
    z = noise_for(model, batch)

    def terms(x):
        h = model.states(replace(batch, x=x), z)
        return model.head.log_prob(h.flatten(0, 1), x.flatten(0, 1)).view(2, -1)[:, :8]

    before = terms(batch.x)
    torch.testing.assert_close(before.sum(1), model.log_likelihood(batch, z), rtol=1e-5, atol=1e-5)
    for step in range(8):
        changed = batch.x.clone()
        changed[:, step] = 1 - changed[:, step]
        torch.testing.assert_close(terms(changed)[:, :step], before[:, :step], rtol=1e-5, atol=1e-5)
        if family != "dense" and step < 7:
            assert not torch.isclose(terms(changed)[:, step + 1], before[:, step + 1]).any()


# Padding


@pytest.mark.parametrize(("family", "head"), HEADED)
def test_sizes_that_hang_on_bounds_alone_change_nothing(family, head):
    """As on a GPU, where real steps and keys that are on are not counted."""
    model = randomise(make_model("binary", family, head=head))
    batch = make_batch("binary", model.padded_to(8), [8, 5])
    noise = noise_for(model, batch)
    for spare in (0, 100):
        bounded = replace(batch, on=int(batch.x.sum()) + spare)
        for row in (0, 1):
            expected, found = parts_of(model, batch, noise, row), parts_of(model, bounded, noise, row)
            for mine, theirs in zip(found, expected, strict=True):
                torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


def test_windows_come_in_few_lengths_where_steps_are_recorded():
    """As on a GPU: of short windows in one, and never longer than what training shows, whose batches would shrink."""
    few, spec = {}, replace(SPECS["binary"], longest_song=200)

    def made(family, window):
        return build_model(Config.for_data(spec, params_of("binary", family, window=window)), spec).to("meta")

    for window in (3, 40, 100):
        model = made("recurrent", window)
        few[window] = [model.padded_to(longest) for longest in range(1, window + 1)]
        assert all(padded >= longest for longest, padded in enumerate(few[window], start=1))
        assert model.padded_to(window + 1) % 32 == 0
    assert [sorted(set(lengths)) for lengths in few.values()] == [[3], [32, 40], [32, 64, 96, 100]]
    bars = made("hierarchical", 99)
    assert sorted({bars.padded_to(longest) for longest in range(1, 100)}) == [33, 66, 96, 99]


def parts_of(model, batch, noise, row):
    """What a window's bound is made of, and the gradients of its loss by all weights."""
    log_likelihood, code = model.terms(batch, noise)
    length = int(batch.lengths[row])
    loss = objective(log_likelihood[row, None], code.kl[row, None], length, 1.0, 0.0)
    real = slice(length) if model.code_unit == "step" else slice(None)
    gradients = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True, materialize_grads=True)
    return [code.z[row, real], code.posterior.std[row, real], code.kl[row], log_likelihood[row], *gradients]


def among_others(batch, steps, rubbish):
    """Three windows, the second of which is that of `batch`; with rubbish in the padding or without."""
    length, generator = int(batch.lengths), torch.Generator().manual_seed(9)
    mask = torch.arange(steps) < torch.tensor([steps, length, 1])[:, None]
    x = torch.rand(3, steps, batch.x.shape[2], generator=generator).round()
    x = x if rubbish else x * mask[..., None]
    x[1, :length] = batch.x[0, :length]
    begins = torch.cat([~batch.begins, batch.begins, ~batch.begins])
    previous = torch.cat([1 - batch.previous, batch.previous, 1 - batch.previous])
    return Batch(x, mask, previous, begins, torch.zeros(3, dtype=torch.long))


@pytest.mark.parametrize("length", [8, 5, 1])
@pytest.mark.parametrize(("family", "head"), HEADED)
def test_padding_and_other_windows_change_nothing(family, head, length):
    """Neither the code nor the parts of the bound nor the gradients: all is as for a window alone, without padding."""
    model = randomise(make_model("binary", family, head=head))
    alone = make_batch("binary", model.padded_to(length), [length, length])
    for row in (0, 1):  # the first begins its song
        batch = each_tensor(alone, lambda part, row=row: part[row, None])
        noise = noise_for(model, batch)
        expected = parts_of(model, batch, noise, 0)
        # Dense layers read and write windows of one length, and see all of it.
        for steps, rubbish in ((8, False),) if family == "dense" else ((9, False), (12, True)):
            others = among_others(batch, steps, rubbish)
            noises = noise_for(model, others, seed=1)
            noises[1, : len(noise[0])] = noise[0]
            for ours, theirs in zip(parts_of(model, others, noises, 1), expected, strict=True):
                atol = 1e-4 * (1 + theirs.detach().abs().max().item())
                torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=atol)


# What reaches what


@pytest.mark.parametrize(("kind", "family"), CASES)
def test_the_code_reaches_the_output_and_the_music_reaches_the_code(kind, family):
    model = randomise(make_model(kind, family))
    window = model.config.window
    batch = make_batch(kind, model.padded_to(window), [window])
    code = model.code(batch, noise_for(model, batch))
    assert code.z.shape == code.posterior.mean.shape == code.posterior.std.shape == model.code_shape(*batch.mask.shape)
    assert (code.posterior.std > 0).all()
    z = code.posterior.mean.detach().requires_grad_()
    model.log_likelihood(batch, z).sum().backward()
    reached = z.grad[:, :window] if model.code_unit == "step" else z.grad
    assert (reached != 0).all()
    x = batch.x.clone().requires_grad_()
    model.code(replace(batch, x=x), noise_for(model, batch)).posterior.mean.sum().backward()
    assert (x.grad != 0).any(dim=2)[batch.mask].all()  # every step of the window


@pytest.mark.parametrize(("kind", "family"), CASES)
def test_the_kl_is_that_of_torch_distributions(kind, family):
    model = randomise(make_model(kind, family))
    window = model.config.window
    batch = make_batch(kind, model.padded_to(window), [window, max(1, window - 3)])
    code, prior = model.code(batch, noise_for(model, batch)), Normal(0.0, 1.0)
    kl = kl_divergence(Normal(*code.posterior), prior)
    ratio = prior.log_prob(code.z) - Normal(*code.posterior).log_prob(code.z)
    for found, parts in ((code.kl, kl), (code.log_ratio, ratio)):
        parts = parts * batch.mask[..., None] if model.code_unit == "step" else parts
        torch.testing.assert_close(found, parts.flatten(1).sum(1), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("kind", "family"), CASES)
def test_terms_are_a_code_and_the_likelihood_given_it(kind, family):
    model = randomise(make_model(kind, family))
    window = model.config.window
    batch = make_batch(kind, model.padded_to(window), [window, max(1, window - 3)])
    noise = noise_for(model, batch)
    terms, code = model.terms(batch, noise), model.code(batch, noise)
    for found, expected in zip(terms.code, code, strict=True):
        torch.testing.assert_close(found, expected)
    torch.testing.assert_close(code.z, code.posterior.mean + code.posterior.std * noise)
    torch.testing.assert_close(terms.log_likelihood, model.log_likelihood(batch, code.z))


def test_the_prior_of_a_step_is_learned_from_the_standard_normal():
    model, batch = make_model("binary", "sequential"), make_batch("binary", 8, [8, 5])
    mean, std = as_normal(model.prior(model.writer(batch)))
    torch.testing.assert_close(mean, torch.zeros_like(mean))
    torch.testing.assert_close(std, torch.ones_like(std), rtol=0, atol=2e-4)
    mean, std = as_normal(randomise(model).prior(model.writer(batch)))
    assert mean[:, :, 0].std() > 0.01  # by the steps before


def test_a_code_counts_from_the_mean_of_its_learned_prior_in_units_of_its_scale():
    model = randomise(make_model("binary", "sequential"))
    batch = make_batch("binary", 8, [8, 5])
    code = model.code(batch, noise_for(model, batch))
    with torch.no_grad():
        model.prior.weight.zero_()
        model.prior.bias.zero_()
        expected = model.log_likelihood(batch, 1.0 + 2.0 * code.z)
        mean, _ = model.prior.bias.chunk(2)
        mean.fill_(1.0)
        model.prior.bias[len(mean) :] = math.log(math.expm1(2.0)) - 0.5413  # a scale of 2
    torch.testing.assert_close(model.log_likelihood(batch, code.z), expected, rtol=1e-3, atol=1e-3)


def test_the_posterior_of_a_step_is_its_prior_corrected():
    model = randomise(make_model("binary", "sequential"))
    with torch.no_grad():
        model.correction.weight.zero_()
        model.correction.bias.zero_()
    batch = make_batch("binary", 8, [8, 5])
    code = model.code(batch, noise_for(model, batch))
    torch.testing.assert_close(code.kl, torch.zeros(2), rtol=0, atol=1e-5)
    assert not code.posterior.mean.any()


@pytest.mark.parametrize(("family", "head"), HEADED)
def test_every_weight_gets_a_gradient(family, head):
    model = randomise(make_model("binary", family, head=head)).train()
    lengths = [8] * 8
    batch = make_batch("binary", model.padded_to(8), lengths)
    log_likelihood, code = model.terms(batch, noise_for(model, batch))
    objective(log_likelihood, code.kl, 64, 1.0, 0.0).backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []
    for block in getattr(model, "blocks", []):
        assert block.code.weight.grad.any(1).all()  # shifts what attention reads, and what the dense layers read


@pytest.mark.parametrize("kind", ["binary", "unit"])
@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_an_untrained_decoder_starts_near_the_marginal(kind, family):
    if (kind, family) not in CASES:
        return
    corpus = make_corpus(kind)
    moments = moments_of(corpus.splits["train"], corpus.spec)
    model = build_model(Config.for_data(corpus.spec, params_of(kind, family)), corpus.spec, moments).eval()
    output = model.output if family == "dense" and kind == "unit" else model.head.output
    output.weight.zero_()
    if kind == "binary":
        share = sample(model, 2000, 8, 1.0, torch.Generator().manual_seed(0)).mean((0, 1)).double().numpy()
        # five standard errors of 2000 windows of 8 steps
        assert (np.abs(share - moments.mean) < 5 * moments.std / np.sqrt(16_000)).all()
    else:
        draws = sample(model, 3, 1, 1.0, torch.Generator())[:, 0].double().numpy()
        np.testing.assert_allclose(draws, np.tile(moments.mean, (3, 1)), rtol=1e-5)


@pytest.mark.parametrize("depth", [1, 2, 3, 5])
def test_dense_layers_are_as_many_and_as_wide_as_configured(depth):
    model = make_model("binary", "dense", dense_depth=depth, dropout=0.1)
    widths = [layer.out_features for layer in model.encoder if isinstance(layer, torch.nn.Linear)]
    assert widths == [layer.out_features for layer in model.decoder if isinstance(layer, torch.nn.Linear)]
    assert widths == {1: [12], 2: [12, 12], 3: [12, 24, 12], 5: [12, 24, 24, 24, 12]}[depth]


@torch.no_grad()
@pytest.mark.parametrize("name", ["dropout", "encoder_dropout"])
@pytest.mark.parametrize("family", FAMILIES)
def test_dropout_acts_in_training_only(family, name):
    model = randomise(make_model("binary", family, **{name: 0.5}))
    batch = make_batch("binary", model.padded_to(8), [8, 8])
    noise = noise_for(model, batch)

    def both():
        log_likelihood, code = model.terms(batch, noise)
        return torch.stack([log_likelihood, code.kl])

    assert torch.equal(both(), both())
    model.train()
    first, second = both(), both()
    in_encoder = family != "dense" if name == "encoder_dropout" else family in ("dense", "sequential")
    in_decoder = in_encoder or name == "dropout"
    assert [not torch.equal(a, b) for a, b in zip(first, second, strict=True)] == [in_decoder, in_encoder]
