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
def test_a_replayed_step_has_the_gradient_of_a_launched_one(family):
    """At the same random numbers, of dropout and of codes; but sums come in any order, and products in bf16."""
    corpus = make_corpus("binary")
    dropped = {"dropout": 0.3, "head_dropout": 0.3, "encoder_dropout": 0.3, "input_dropout": 0.3, "step_dropout": 0.3}
    params = params_of("binary", family) | SOME | dropped | {"rnn_layers": 2, "rate_target": 0.0}
    trainer, found = Trainer(Config.for_data(corpus.spec, params), TrainingData.load(corpus, GPU)), []
    plan, songs = trainer._order.take(), trainer.data.songs["train"]
    shape = songs.shape(plan, trainer.model.padded_to(plan.longest))
    inputs = songs.places(plan), torch.tensor([plan.steps, 1.0])
    trainer.model.train()
    for _ in range(6):
        torch.manual_seed(3)
        sums = trainer._graphs.run(trainer._differentiate, shape, *inputs)
        found.append((sums.clone(), torch.cat([p.grad.flatten() for p in trainer.model.parameters()])))
    assert trainer._graphs._graphs
    for sums, gradient in found[1:]:
        torch.testing.assert_close(sums, found[0][0], rtol=1e-2, atol=1e-2)
        assert (gradient - found[0][1]).norm() < 0.02 * found[0][1].norm()


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
    trainer, again = Trainer(config, data, epoch_steps=3000), Trainer(config, data, epoch_steps=3000)
    trainer.train_epoch()
    trainer.save(tmp_path)
    again.restore(tmp_path)
    for _ in range(2):
        there, here = trainer.train_epoch(), again.train_epoch()
        assert here["val_elbo"] == pytest.approx(there["val_elbo"], rel=0.02)
        assert here["beta"] == pytest.approx(there["beta"], rel=0.05)
