"""vae.optimizer: AdamW against PyTorch's, the average of weights against a loop, restores to the bit."""

import math

import pytest
import torch
from torch import nn

from vae.config import Config
from vae.optimizer import Optimizer
from vae.schedules import learning_rate

PLAIN = {"learning_rate": 0.05, "lr_warmup": 0, "weight_decay": 0.0, "ema": 0.0, "grad_clip": 1e9}


def made(seed=0, **params):
    """A small model and its optimizer."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.LayerNorm(4), nn.Linear(4, 1))
    return model, Optimizer(model, Config(**{**PLAIN, **params}))


def loss_of(model, step):
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(step))
    return (model(x).squeeze(1) - x.sum(1)).square().mean()


def follow(model, optimizer, step):
    optimizer.differentiate(loss_of(model, step))
    optimizer.step(step, step)


def train(model, optimizer, steps):
    for step in steps:
        follow(model, optimizer, step)


def weights(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def assert_same(left, right):
    assert left.keys() == right.keys()
    assert [name for name in left if not torch.equal(left[name], right[name])] == []


def test_steps_are_adamws_at_the_learning_rate_of_the_schedule():
    schedule = {"lr_warmup": 3, "lr_decay": 6, "lr_final": 0.2}
    model, optimizer = made(**schedule)
    other, _ = made()
    adamw = torch.optim.AdamW(other.parameters(), lr=1.0, weight_decay=0.0)
    config = Config(**{**PLAIN, **schedule})
    for step in range(12):
        follow(model, optimizer, step)
        adamw.param_groups[0]["lr"] = learning_rate(config, step, step)
        adamw.zero_grad()
        loss_of(other, step).backward()
        adamw.step()
    for name, value in other.named_parameters():
        torch.testing.assert_close(model.state_dict()[name], value.detach(), rtol=1e-4, atol=1e-6)


def test_weight_decay_shrinks_matrices_alone():
    (plain, plainly), (decayed, decaying) = made(), made(weight_decay=2.0)
    start = weights(plain)
    train(plain, plainly, [0])
    train(decayed, decaying, [0])
    for name, value in plain.named_parameters():
        lost = 0.05 * 2.0 * start[name] if value.ndim > 1 else torch.zeros_like(value)
        torch.testing.assert_close(decayed.state_dict()[name], value.detach() - lost, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("clip", [1e9, 0.01])
def test_a_gradient_is_clipped_to_its_norm(clip):
    model, optimizer = made(grad_clip=clip)
    train(model, optimizer, [0])
    norm = math.sqrt(sum(p.grad.square().sum().item() for p in model.parameters()))
    assert norm > 0.1 if clip > 1 else norm == pytest.approx(0.01, rel=1e-3)


def test_the_average_forgets_its_first_weights_sooner_than_later_ones():
    """By hand: a_n = d a_(n-1) + (1 - d) w_n, d = min(ema, (1 + n) / (10 + n))."""
    model, optimizer = made(ema=0.6)
    average = weights(model)
    decays = []
    for step in range(20):
        train(model, optimizer, [step])
        decays.append(min(0.6, (1 + step) / (10 + step)))
        average = {n: decays[-1] * a + (1 - decays[-1]) * model.state_dict()[n] for n, a in average.items()}
    assert decays[0] == 0.1
    assert decays[-1] == 0.6
    with optimizer.averaged():
        for name, value in model.state_dict().items():
            torch.testing.assert_close(value, average[name], rtol=1e-5, atol=1e-7)
    assert not torch.allclose(model[0].weight, average["0.weight"], rtol=1e-3)


def test_weights_come_back_from_the_average_even_after_an_error():
    model, optimizer = made(ema=0.9)
    train(model, optimizer, range(5))
    before, places = weights(model), [p.data_ptr() for p in model.parameters()]

    def fail():
        with optimizer.averaged():
            assert not torch.equal(model[0].weight, before["0.weight"])
            raise KeyboardInterrupt("now")

    with pytest.raises(KeyboardInterrupt, match="now"):
        fail()
    assert_same(weights(model), before)
    assert [p.data_ptr() for p in model.parameters()] == places


def test_looking_at_the_average_does_not_change_the_course():
    (looked, looking), (left, leaving) = made(ema=0.9), made(ema=0.9)
    for step in range(6):
        train(looked, looking, [step])
        train(left, leaving, [step])
        with looking.averaged(), torch.no_grad():
            for parameter in looked.parameters():
                parameter.add_(1.0)  # lost with the context, the average included
    assert_same(weights(looked), weights(left))
    assert_same(looking.tensors(), leaving.tensors())


def test_without_an_average_the_weights_are_their_own():
    model, optimizer = made(ema=0.0)
    train(model, optimizer, range(3))
    before = weights(model)
    with optimizer.averaged():
        assert_same(weights(model), before)
    assert not any(name.startswith("average.") for name in optimizer.tensors())


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_what_is_restored_goes_on_to_the_bit(ema):
    params = {"ema": ema, "weight_decay": 0.1, "lr_warmup": 3, "lr_decay": 9}
    whole, first = made(**params), made(**params)
    train(*whole, range(10))
    train(*first, range(5))
    second = made(seed=1, **params)
    second[0].load_state_dict(first[0].state_dict())
    second[1].restore({name: value.clone() for name, value in first[1].tensors().items()})
    assert_same(second[1].tensors(), first[1].tensors())
    train(*second, range(5, 10))
    assert_same(weights(second[0]), weights(whole[0]))
    assert_same(second[1].tensors(), whole[1].tensors())
    with second[1].averaged(), whole[1].averaged():
        assert_same(weights(second[0]), weights(whole[0]))


def test_what_lacks_the_average_is_not_restored():
    model, optimizer = made(ema=0.0)
    train(model, optimizer, [0])
    with pytest.raises(KeyError, match=r"average\.0\.weight"):
        made(ema=0.9)[1].restore(optimizer.tensors())
