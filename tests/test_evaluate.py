"""vae.evaluate: the metric against exact answers, torch.distributions, sums by hand, and what must not change it."""

import json
import math

import numpy as np
import pytest
import torch
from scipy import stats
from tiny import CPU, REAL, SMALL, SPECS, make_corpus, make_model, make_trainer
from torch.distributions import Bernoulli, Independent, MultivariateNormal, Normal, kl_divergence

from vae import evaluate as evaluation
from vae.config import Config
from vae.corpus import Split, save_corpus
from vae.evaluate import evaluate, importance_weighted_bound, is_feasible, main, marginal_elbo, rank_value
from vae.models.base import Posterior, Vae
from vae.models.dense import Dense
from vae.models.likelihood import SCALE_FLOOR, Moments, moments_of
from vae.windows import Songs

ROWS = 1000
METRICS = {"elbo", "elbo_per_song", "log_likelihood", "kl", "code_gain", "active_units"}


class LinearGaussian(Vae):
    """p(x|z) = N(W z + b, s^2 I), columns of W orthogonal, so that the exact posterior has independent dimensions.

    `shift` and `stretch` of the exact posterior make it wrong.
    """

    bias = torch.tensor([0.3, -1.0, 0.0, 2.0, 0.1])
    scale = 0.5

    def __init__(self, shift=0.0, stretch=1.0):
        super().__init__(Config(window=1, latent_dim=2), REAL, None)
        basis = np.linalg.qr([[1, 1], [1, -1], [0, 1], [2, 0], [0, 1]])[0]
        self.weight = torch.tensor(basis * [1.5, 0.7], dtype=torch.float32)
        self.shift, self.stretch = shift, stretch
        with torch.no_grad():
            self.likelihood.log_scale.fill_(math.log(self.scale - SCALE_FLOOR))

    def encode(self, batch):
        precision = 1.0 + self.weight.square().sum(0) / self.scale**2
        mean = (batch.x[:, 0] - self.bias) @ self.weight / self.scale**2 / precision
        std = precision.rsqrt().expand_as(mean)
        return Posterior(mean + self.shift * std, self.stretch * std)

    def log_likelihood(self, batch, z):
        return (self.likelihood.log_prob((z @ self.weight.T + self.bias)[:, None], batch.x) * batch.mask).sum(1)

    def sample(self, z, temperature, generator):
        raise NotImplementedError

    def exact(self, x):
        """Log N(x; b, W W^T + s^2 I), the mean over rows."""
        weight = self.weight.double()
        covariance = weight @ weight.T + self.scale**2 * torch.eye(5, dtype=torch.float64)
        return MultivariateNormal(self.bias.double(), covariance).log_prob(x.double()).mean().item()


class Recorder(Dense):
    """Keeps what it was asked to score: each set of codes with its windows, and the answer."""

    def log_likelihood(self, batch, z):
        answer = super().log_likelihood(batch, z)
        self.seen.append((batch, z, answer))
        return answer


def recorder(kind="binary", seed=0):
    model = make_model(kind, "dense", seed)
    model.__class__ = Recorder
    model.seen = []
    return model


@pytest.fixture(scope="module")
def rows():
    """Rows from the linear model itself, as songs of one step."""
    model, generator = LinearGaussian(), torch.Generator().manual_seed(0)
    z = torch.randn(ROWS, 2, generator=generator)
    x = z @ model.weight.T + model.bias + model.scale * torch.randn(ROWS, 5, generator=generator)
    return Songs(Split(x.numpy(), np.ones(ROWS, np.int64)), CPU)


@pytest.fixture
def songs():
    return Songs(make_corpus().splits["valid"], CPU)


# Exact answers


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
    bounds = [evaluate(model, rows, 0)["elbo"]]
    bounds += [importance_weighted_bound(model, rows, 0, samples) for samples in (2, 8, 32)]
    assert bounds == sorted(bounds)
    assert exact - bounds[0] > 0.3
    assert bounds[-1] == pytest.approx(exact, abs=0.02)
    assert bounds[-1] < exact + 1e-3


def test_the_gap_of_the_elbo_is_the_divergence_from_the_exact_posterior(rows):
    exact, wrong = LinearGaussian(), LinearGaussian(shift=0.7, stretch=1.3)
    batch = rows.batch(rows.partition(1), 1)
    gap = kl_divergence(Normal(*wrong.encode(batch)), Normal(*exact.encode(batch))).sum(1).mean().item()
    found = np.mean([evaluate(wrong, rows, seed)["elbo"] for seed in range(4)])
    assert found == pytest.approx(exact.exact(rows.values[:-1]) - gap, abs=10 / math.sqrt(4 * ROWS))


def test_importance_with_one_sample_is_about_the_elbo(songs):
    model = make_model("binary", "recurrent")
    # They share the noise; the elbo has the KL in closed form, the other as log q - log p.
    assert importance_weighted_bound(model, songs, 0, 1) == pytest.approx(evaluate(model, songs, 0)["elbo"], abs=0.05)


# torch.distributions, and sums by hand


@pytest.mark.parametrize("kind", SPECS)
def test_the_metric_is_that_of_torch_distributions(kind):
    model, split = recorder(kind), make_corpus(kind).splits["valid"]
    found = evaluate(model, Songs(split, CPU), 0)
    batch, z, _ = model.seen[0]
    with torch.no_grad():
        parameters, posterior = model._outputs(z).double(), model.encode(batch)
        scale = torch.ones(()) if kind == "binary" else model.likelihood.scale()
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


def test_every_step_counts_once_and_every_song_pays_its_own_windows(songs):
    model = recorder()
    found = evaluate(model, songs, 0)
    batch, _, own = model.seen[0]
    assert torch.equal(batch.x[batch.mask], songs.values[:-1].float())
    mean, std = model.encode(batch)
    kl = kl_divergence(Normal(mean, std), Normal(torch.zeros(4), torch.ones(4))).sum(1)
    total, per_song, window = 0.0, [], 0
    for length in songs.lengths.tolist():
        count = math.ceil(length / 8)
        elbo = (own - kl)[window : window + count].sum().item()
        total, window = total + elbo, window + count
        per_song.append(elbo / length)
    assert window == len(own)
    assert found["elbo"] == pytest.approx(total / songs.lengths.sum().item(), rel=1e-5)
    assert found["elbo_per_song"] == pytest.approx(np.mean(per_song), rel=1e-5)


def test_units_that_vary_are_active():
    model, generator = LinearGaussian(), torch.Generator().manual_seed(0)
    x = model.bias + torch.randn(500, 1, generator=generator) * model.weight[:, 0]  # along one direction
    found = evaluate(model, Songs(Split(x.numpy(), np.ones(500, np.int64)), CPU), 0)
    assert found["active_units"] == 1


def test_a_single_window_has_no_active_unit_and_gains_nothing():
    songs = Songs(Split(np.ones((5, 6), np.uint8), np.array([5])), CPU)
    found = evaluate(make_model("binary", "dense"), songs, 0)
    assert (found["active_units"], found["code_gain"]) == (0, 0.0)
    assert found["elbo"] == found["elbo_per_song"]


# Invariances


@pytest.mark.parametrize("family", SMALL)
def test_the_size_of_an_evaluation_batch_does_not_matter(songs, family, monkeypatch):
    model = make_model("binary", family)
    expected = evaluate(model, songs, 0) | {"iwae": importance_weighted_bound(model, songs, 0, 3)}
    for size in (3, 20):
        monkeypatch.setattr(evaluation, "_BATCH", size)
        found = evaluate(model, songs, 0) | {"iwae": importance_weighted_bound(model, songs, 0, 3)}
        assert found == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_noise_depends_on_the_seed_the_song_and_the_unit_alone():
    split = make_corpus().splits["valid"]
    first = Split(split.values[: split.lengths[:7].sum()], split.lengths[:7])
    found = []
    for part, seed in ((split, 0), (first, 0), (first, 1)):
        model = recorder()
        torch.manual_seed(len(found))  # the process's own randomness has no say
        evaluate(model, Songs(part, CPU), seed)
        found.append(model.seen[0][1])
    alone = len(found[1])
    torch.testing.assert_close(found[0][:alone], found[1], rtol=1e-5, atol=1e-6)
    assert not torch.isclose(found[1], found[2]).any()
    assert len(found[0].unique()) == found[0].numel()


def test_evaluation_is_repeatable_and_leaves_no_trace(songs):
    model = make_model("binary", "recurrent", dropout=0.5).train()
    state = torch.get_rng_state()
    first = evaluate(model, songs, 0), importance_weighted_bound(model, songs, 0, 2)
    assert (evaluate(model, songs, 0), importance_weighted_bound(model, songs, 0, 2)) == first
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    assert set(first[0]) == METRICS


def test_evaluation_knows_no_beta_and_no_free_bits(songs):
    plain = evaluate(make_model("binary", "dense"), songs, 0)
    assert evaluate(make_model("binary", "dense", beta=7.0, free_bits=3.0, beta_warmup=99), songs, 0) == plain


# What the code does


def test_a_decoder_that_ignores_its_code_gains_nothing_by_it(songs):
    model = make_model("binary", "dense")
    with torch.no_grad():
        model.decoder[0].weight.zero_()
    found = evaluate(model, songs, 0)
    assert found["code_gain"] == 0.0
    assert found["kl"] > 0


def test_a_code_that_says_the_same_of_all_music_gains_nothing(songs):
    """A KL met by an offset: q(z|x) far from the prior, and equal for all x."""
    model = make_model("binary", "dense")
    with torch.no_grad():
        model.posterior.weight.zero_()
        model.posterior.bias.copy_(torch.tensor([2.0] * 4 + [-6.0] * 4))
    found = evaluate(model, songs, 0)
    assert found["kl"] > 1.0
    assert found["code_gain"] == pytest.approx(0.0, abs=0.01)
    assert not is_feasible(found, min_kl=0.1)


def test_a_decoder_that_uses_its_code_gains(rows):
    model = LinearGaussian()
    found = evaluate(model, rows, 0)
    # E log p(x|z) - E log p(x|z'): z' is an independent draw from the marginal, which is the prior.
    # So (|x - W z' - b|^2 - |x - W z - b|^2) / (2 s^2) has the mean |W|^2 / s^2.
    expected = model.weight.square().sum().item() / model.scale**2
    assert found["code_gain"] == pytest.approx(expected, rel=0.1)  # of 1000 rows


def test_rank_by_hand():
    metrics = {"val_elbo": -8.0, "kl": 0.04}
    assert rank_value(metrics, min_kl=0.1) == pytest.approx(-8.6)
    assert rank_value(metrics, min_kl=0.04) == -8.0
    assert rank_value(metrics, min_kl=0.0) == -8.0


@pytest.mark.parametrize(
    ("kl", "code_gain", "feasible"),
    [(0.1, 0.05, True), (0.099, 1.0, False), (1.0, 0.049, False), (1.0, -3.0, False), (math.nan, 1.0, False)],
)
def test_feasibility_by_hand(kl, code_gain, feasible):
    assert is_feasible({"kl": kl, "code_gain": code_gain}, min_kl=0.1) == feasible


# The baseline


def test_marginal_by_hand():
    """Train 3 of 4 and 0 of 4, with add-one smoothing 4/6 and 1/6; two steps of one song are scored."""
    train = Split(np.array([[1, 0], [1, 0], [1, 0], [0, 0]], np.uint8), np.array([4]))
    scored = Split(np.array([[1, 0], [0, 1]], np.uint8), np.array([2]))
    spec = SPECS["binary"]
    expected = (math.log(4 / 6) + math.log(5 / 6) + math.log(2 / 6) + math.log(1 / 6)) / 2
    assert marginal_elbo(moments_of(train, spec), scored, spec) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("kind", SPECS)
def test_marginal_is_that_of_scipy(kind):
    corpus = make_corpus(kind)
    moments, x = moments_of(corpus.splits["train"], corpus.spec), corpus.splits["test"].values.astype(np.float64)
    oracle = stats.bernoulli.logpmf(x, moments.mean) if kind == "binary" else stats.norm.logpdf(x, *moments)
    found = marginal_elbo(moments, corpus.splits["test"], corpus.spec)
    assert found == pytest.approx(oracle.sum(1).mean(), rel=1e-9)


def test_marginal_is_what_a_decoder_without_a_code_reaches():
    corpus = make_corpus("binary")
    moments = moments_of(corpus.splits["train"], corpus.spec)
    model = Dense(Config.for_data(corpus.spec, SMALL["dense"]), corpus.spec, moments)
    with torch.no_grad():
        model.output.weight.zero_()
    found = evaluate(model, Songs(corpus.splits["valid"], CPU), 0)["log_likelihood"]
    assert found == pytest.approx(marginal_elbo(moments, corpus.splits["valid"], corpus.spec), rel=1e-5)


def test_the_marginal_of_a_gaussian_with_the_fitted_moments_is_minus_its_entropy():
    values = np.random.default_rng(0).normal(3.0, 2.0, (1000, 1)).astype(np.float32)
    split = Split(values, np.ones(1000, np.int64))
    std = values.std(dtype=np.float64)
    moments = Moments(values.mean(axis=0, dtype=np.float64), np.array([std]))
    assert marginal_elbo(moments, split, REAL) == pytest.approx(-stats.norm(scale=std).entropy(), rel=1e-9)


# The command


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A checkpoint, and the data it was trained on under the name that the checkpoint has for them."""
    folder = tmp_path_factory.mktemp("trained")
    trainer = make_trainer()
    trainer.train_epoch()
    (folder / "run").mkdir()
    trainer.save(folder / "run", final=True)
    save_corpus(trainer.data.corpus, folder / "made")
    (folder / "made").rename(folder / "made.npz")
    return trainer, folder


def test_command_prints_the_bounds_of_a_split(trained, capsys):
    trainer, folder = trained
    arguments = ["--checkpoint", str(folder / "run"), "--data", str(folder / "made.npz")]
    assert main([*arguments, "--split", "test", "--iwae", "4"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert set(report) == METRICS | {"checkpoint", "data", "split", "iwae", "iwae_samples"}
    expected = evaluate(trainer.model, trainer.data.songs["test"], evaluation.TEST_SEED)
    assert {name: report[name] for name in METRICS} == pytest.approx(expected, rel=1e-5)
    assert report["iwae"] > report["elbo"] - 0.05
    assert main(arguments) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["split"] == "valid"
    assert report["elbo"] == pytest.approx(trainer.best.metrics["val_elbo"], rel=1e-5)


def test_command_tells_mistakes_in_one_line(trained, capsys, tmp_path, monkeypatch):
    _, folder = trained
    monkeypatch.chdir(tmp_path)
    other = make_corpus("real")
    save_corpus(other, tmp_path / "real.npz")
    run, data = ["--checkpoint", str(folder / "run")], ["--data", str(folder / "made.npz")]
    cases = {
        (*run, *data, "--iwae", "0"): "error: --iwae must be at least 1, but got 0.",
        ("--checkpoint", "nothing"): "error: nothing: no checkpoint here (config.json is missing).",
        tuple(
            run
        ): "error: made: the data that the checkpoint was trained on are not here; pass their place as --data.",
        (*run, "--data", "real.npz"): "error: real.npz: the checkpoint scores binary of 6 features, "
        "but this is real of 5.",
        ("--best",): "error: results: no sweep with a best checkpoint; run `python -m sweep.run` first, "
        "or pass --results.",
    }
    for arguments, message in cases.items():
        assert main(list(arguments)) == 2
        printed = capsys.readouterr()
        assert (printed.out, printed.err) == ("", message + "\n")


def test_command_notices_that_the_data_have_changed(trained, capsys, tmp_path, monkeypatch):
    _, folder = trained
    monkeypatch.chdir(tmp_path)
    record = json.loads((folder / "run" / "config.json").read_text())
    run = tmp_path / "run"
    run.mkdir()
    for name in ("model.safetensors", "metrics.json"):
        (run / name).write_bytes((folder / "run" / name).read_bytes())
    (run / "config.json").write_text(json.dumps(record | {"data": "made.npz"}))
    save_corpus(make_corpus(seed=1), tmp_path / "made.npz")
    assert main(["--checkpoint", "run"]) == 2
    expected = (
        "error: made.npz: no longer what the checkpoint was trained on; pass --data made.npz to score it anyway.\n"
    )
    assert capsys.readouterr().err == expected
    assert main(["--checkpoint", "run", "--data", "made.npz"]) == 0
    assert json.loads(capsys.readouterr().out)["data"] == "made.npz"
