"""vae.graphs: steps that a GPU replays train as steps that are launched one by one."""

from collections import Counter

import pytest
import torch
from tiny import CPU, make_corpus, params_of

from vae.config import FAMILY_NAMES, Config
from vae.graphs import Graphs
from vae.trainer import Trainer, TrainingData

GPU = torch.device("cuda")
SOME = {"batch_steps": 50}
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def test_without_a_gpu_functions_are_called():
    calls = Counter()

    def compute(shape, x):
        calls[shape] += 1
        return x + len(shape)

    graphs = Graphs(CPU)
    for step in range(5):
        assert torch.equal(graphs.run(compute, (7, None), torch.tensor([step])), torch.tensor([step + 2]))
    assert calls == {(7, None): 5}


@needs_gpu
@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_replayed_steps_train_as_steps_that_are_launched(family, monkeypatch):
    """The same weights, data and noise; but sums come in any order, and products in bf16."""
    corpus = make_corpus("binary")
    config = Config.for_data(corpus.spec, params_of("binary", family) | SOME | {"transpose": 0})
    data, losses = TrainingData.load(corpus, GPU), {}
    for most in (0, 64):
        monkeypatch.setattr("vae.graphs._MOST", most)
        trainer = Trainer(config, data, epoch_steps=3000)
        losses[most] = [trainer.train_epoch() for _ in range(3)]
        assert bool(trainer._graphs._graphs) == bool(most)
    for launched, replayed in zip(losses[0], losses[64], strict=True):
        for name in ("train_elbo", "train_kl", "val_elbo", "kl"):
            assert replayed[name] == pytest.approx(launched[name], rel=0.05, abs=0.02), name


@needs_gpu
@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_each_replay_draws_new_noise_and_reads_new_music(family):
    corpus = make_corpus("binary")
    config = Config.for_data(corpus.spec, {**params_of("binary", family), **SOME, "learning_rate": 1e-8})
    trainer = Trainer(config, TrainingData.load(corpus, GPU))
    plans = [trainer._order.take() for _ in range(3)]
    sums = [trainer._optimizer_step(plan).tolist() for plan in [plans[0]] * 6]
    assert trainer._graphs._graphs
    assert len({tuple(pair) for pair in sums}) == 6  # of one batch
    assert trainer._optimizer_step(plans[0]).tolist() != trainer._optimizer_step(plans[1]).tolist()


@needs_gpu
def test_the_random_numbers_of_replays_go_on_where_they_were_kept(tmp_path):
    corpus = make_corpus("binary")
    config = Config.for_data(corpus.spec, {**params_of("binary", "recurrent"), **SOME, "rate_target": 0.2})
    data = TrainingData.load(corpus, GPU)
    trainer, again = Trainer(config, data, epoch_steps=3000), Trainer(config, data, epoch_steps=2000)
    trainer.train_epoch()
    trainer.save(tmp_path)
    again.restore(tmp_path)
    for _ in range(2):
        there, here = trainer.train_epoch(), again.train_epoch()
        assert here["val_elbo"] == pytest.approx(there["val_elbo"], rel=0.02)
        assert here["beta"] == pytest.approx(there["beta"], rel=0.05)
