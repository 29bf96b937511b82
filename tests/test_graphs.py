"""vae.graphs: steps that a GPU replays are steps that are launched one by one."""

import gc
from collections import Counter

import pytest
import torch
from tiny import CASES, CPU, make_corpus, params_of

from vae.config import Config
from vae.device import release_gpu
from vae.graphs import Graphs
from vae.trainer import Trainer, TrainingData
from vae.windows import Shape

GPU = torch.device("cuda")
DROPPED = ("dropout", "head_dropout", "encoder_dropout", "input_dropout", "step_dropout", "weight_dropout")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def make(kind, family, **params):
    corpus = make_corpus(kind)
    params = params_of(kind, family) | {"batch_steps": 50, "rnn_layers": 2, **dict.fromkeys(DROPPED, 0.3), **params}
    return Trainer(Config.for_data(corpus.spec, params), TrainingData.load(corpus, GPU), epoch_steps=3000)


def inputs_of(trainer, plan, beta=1.0):
    songs = trainer.data.songs["train"]
    shape = songs.shape(plan, trainer.model.padded_to(plan.longest))
    return shape, songs.places(plan), torch.tensor([plan.steps, beta])


def outcome(trainer, step, inputs, seed):
    """Sums and gradient of a step, at given random numbers of dropout and codes."""
    torch.manual_seed(seed)
    sums = step(*inputs)
    return sums.clone(), torch.cat([p.grad.flatten() for p in trainer.model.parameters()])


def launched(trainer, inputs, seed):
    shape, *given = inputs
    return outcome(trainer, lambda *_: trainer._differentiate(shape, *(part.to(GPU) for part in given)), inputs, seed)


def replayed(trainer, inputs, seed):
    return outcome(trainer, lambda *given: trainer._graphs.run(trainer._differentiate, *given), inputs, seed)


def assert_same(found, expected):
    """But for sums, which come in any order, and products in bf16."""
    torch.testing.assert_close(found[0], expected[0], rtol=1e-2, atol=1e-2)
    assert (found[1] - expected[1]).norm() < 0.02 * expected[1].norm()


def test_without_a_gpu_steps_are_computed():
    calls = Counter()

    def compute(shape, places, numbers):
        calls[shape] += 1
        return places.sum() + numbers

    graphs = Graphs(CPU)
    for step in range(5):
        found = graphs.run(compute, Shape(7, None), torch.full((5, 2), step), torch.tensor([3.0]))
        assert found.tolist() == [10.0 * step + 3.0]
    assert calls == {Shape(7, None): 5}


@needs_gpu
@pytest.mark.parametrize(("kind", "family"), CASES)
def test_a_replay_gives_what_launching_gives_of_other_music_at_another_beta(kind, family):
    trainer = make(kind, family, rate_target=0.0)
    trainer.model.train()
    plans = [trainer._order.take() for _ in range(40)]
    first = inputs_of(trainer, plans[0])
    for seed in range(4):
        replayed(trainer, first, seed)
    assert trainer._graphs._graphs
    others = [inputs_of(trainer, plan, beta=0.5) for plan in plans[1:]]
    alike = [other for other in others if (other[0], other[1].shape) == (first[0], first[1].shape)]
    windows = inputs_of(trainer, plans[0][torch.arange(len(plans[0])).flip(0)], beta=2.0)
    for seed, other in enumerate([first, windows, *alike[:3], first], start=9):
        assert_same(replayed(trainer, other, seed), launched(trainer, other, seed))
    different = launched(trainer, first, 1)[1] - launched(trainer, windows, 1)[1]
    assert different.norm() > 0.1 * launched(trainer, first, 1)[1].norm()


@needs_gpu
@pytest.mark.parametrize("family", ["sequential", "transformer"])
def test_graphs_of_several_shapes_keep_out_of_each_others_way(family):
    trainer = make("binary", family, rate_target=0.0)
    trainer.model.train()
    inputs = [inputs_of(trainer, trainer._order.take()) for _ in range(12)]
    for _ in range(4):
        for each in inputs:
            replayed(trainer, each, 0)
        trainer.validate()
        trainer.model.train()
    assert len(trainer._graphs._graphs) > 1
    for seed, each in enumerate(inputs):
        assert_same(replayed(trainer, each, seed), launched(trainer, each, seed))


@needs_gpu
@pytest.mark.parametrize("family", ["recurrent", "dense"])
def test_the_random_numbers_of_replays_go_on_where_they_were_kept(family, tmp_path):
    trainer, again = make("binary", family, rate_target=0.2), make("binary", family, rate_target=0.2)
    trainer.train_epoch()
    trainer.save(tmp_path)
    again.restore(tmp_path)
    for _ in range(2):
        there, here = trainer.train_epoch(), again.train_epoch()
        assert all(torch.equal(again._rng[name], state) for name, state in trainer._rng.items())
        assert here["val_elbo"] == pytest.approx(there["val_elbo"], rel=0.02)
        assert here["beta"] == pytest.approx(there["beta"], rel=0.05)
    assert trainer._graphs._graphs
    assert again._graphs._graphs


@needs_gpu
@pytest.mark.parametrize("family", ["recurrent", "sequential"])
def test_parameters_stay_where_graphs_and_the_optimizer_know_them(family):
    trainer = make("binary", family)
    parameters = dict(trainer.model.named_parameters())
    trainer.train_epoch()
    places = {name: value.data_ptr() for name, value in parameters.items()}
    before = {name: value.detach().clone() for name, value in parameters.items()}
    trainer.train_epoch()
    assert places == {name: value.data_ptr() for name, value in trainer.model.named_parameters()}
    assert [name for name, value in parameters.items() if "lstm" in name and torch.equal(value, before[name])] == []


@needs_gpu
def test_without_memory_to_record_steps_are_launched():
    def compute(_, places, numbers):
        if torch.cuda.is_current_stream_capturing():
            torch.empty(2**50, dtype=torch.uint8, device=GPU)
        return places.sum() + numbers + torch.rand(1, device=GPU)

    graphs = Graphs(GPU)
    for step in range(8):
        found = graphs.run(compute, Shape(7, None), torch.full((5, 2), step), torch.tensor([3.0]))
        assert 10.0 * step + 3.0 <= found.item() <= 10.0 * step + 4.0
    assert not graphs._graphs


@needs_gpu
def test_the_memory_of_a_trainer_that_is_gone_is_free():
    held = []
    for _ in range(4):
        trainer = make("binary", "sequential")
        trainer.train_epoch()
        assert trainer._graphs._graphs
        del trainer
        gc.collect()
        release_gpu()
        held.append(torch.cuda.memory_reserved())
    assert held[-1] <= held[0]
