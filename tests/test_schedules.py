"""vae.schedules: learning rate, beta and its control, by hand."""

import math

import pytest
import torch

from vae.config import Config
from vae.schedules import RateControl, beta, learning_rate

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("step", "steps_seen", "share"),
    [
        (0, 0, 0.25),
        (1, 0, 0.5),
        (3, 0, 1.0),
        (9, 0, 1.0),
        (9, 500, 0.2 + 0.8 * 0.5),
        (1, 500, 0.5 * (0.2 + 0.8 * 0.5)),  # the rise and the fall know nothing of each other
        (9, 1000, 0.2),
        (10_000, 500, 0.2 + 0.8 * 0.5),
        (9, 1_000_000, 0.2),
    ],
)
def test_learning_rate_rises_by_optimizer_steps_and_falls_by_time_steps(step, steps_seen, share):
    config = Config(learning_rate=0.1, lr_warmup=4, lr_decay=1000, lr_final=0.2)
    assert learning_rate(config, step, steps_seen) == pytest.approx(0.1 * share, rel=1e-12)


@pytest.mark.parametrize("step", [0, 1, 10**6])
def test_learning_rate_is_constant_without_a_schedule(step):
    assert learning_rate(Config(learning_rate=0.1, lr_warmup=0), step, 100 * step) == 0.1


def test_learning_rate_stays_at_its_peak_without_a_fall():
    config = Config(learning_rate=0.1, lr_warmup=4)
    assert [learning_rate(config, step, 100 * step) for step in (0, 3, 4, 10**6)] == [0.025, 0.1, 0.1, 0.1]


def warming(**more):
    return Config(rate_target=0.0, beta=2.0, beta_warmup=4, **more)


@pytest.mark.parametrize(("step", "expected"), [(0, 0.0), (1, 0.5), (3, 1.5), (4, 2.0), (5, 2.0), (10**6, 2.0)])
def test_beta_rises_from_nothing_and_stays(step, expected):
    assert beta(warming(), step) == expected
    assert beta(Config(beta=2.0), step) == 2.0


@pytest.mark.parametrize("cycle", [4, 6])
def test_beta_rises_again_every_cycle(cycle):
    once = [0.0, 0.5, 1.0, 1.5, 2.0, 2.0][:cycle]
    assert [beta(warming(beta_cycle=cycle), step) for step in range(3 * cycle)] == 3 * once


def observed(rate, before=1.0, target=0.1, most=2.0):
    """Beta after one batch of this KL."""
    control = RateControl(Config(rate_target=target, beta=most), CPU)
    control.beta.fill_(before)
    control.observe(torch.tensor(rate))
    return control.beta.item()


@pytest.mark.parametrize(
    ("rate", "exponent"),
    [
        (0.1, 0.0),  # at its target it stays
        (0.15, 0.05 * 0.5),
        (0.11, 0.05 * 0.1),
        (0.05, -0.05 * 0.5),
        (0.2, 0.05),
        (0.6, 0.05 * 5),
        (50.0, 0.05 * 5),  # no faster than this, up
        (0.0, -0.05),  # or down
    ],
)
def test_a_code_worth_more_than_the_target_costs_more(rate, exponent):
    assert observed(rate) == pytest.approx(math.exp(exponent), rel=1e-6)


@pytest.mark.parametrize(("rate", "before", "after"), [(9.0, 1.99, 2.0), (9.0, 2.0, 2.0), (0.0, 0.0201, 0.02)])
def test_controlled_beta_lies_between_a_hundredth_of_the_configs_and_the_whole(rate, before, after):
    assert observed(rate, before) == pytest.approx(after, rel=1e-6)


def test_control_begins_at_the_least_beta_also_of_a_whole_number():
    control = RateControl(Config(beta=3), CPU)
    assert control.beta.item() == pytest.approx(0.03, rel=1e-6)
    control.observe(torch.tensor(9.0))
    assert control.beta.item() == pytest.approx(0.03 * math.exp(0.25), rel=1e-6)


def test_control_passes_no_gradient_on():
    control, rate = RateControl(Config(), CPU), torch.tensor(0.3, requires_grad=True)
    control.observe(rate)
    assert not control.beta.requires_grad


@pytest.mark.parametrize("start", [0.2, 2.0])
def test_control_finds_the_beta_that_holds_the_target(start):
    """Of a code whose KL falls as it gets dearer, kl = 0.05 / beta: the target 0.1 is met at 0.5."""
    control = RateControl(Config(rate_target=0.1, beta=2.0), CPU)
    control.beta.fill_(start)
    for _ in range(300):
        control.observe(0.05 / control.beta)
    assert control.beta.item() == pytest.approx(0.5, rel=1e-3)


def pressing(beta=0.5):
    """A control that has had its say."""
    control = RateControl(Config(rate_target=0.12), CPU)
    control.beta.fill_(beta)
    return control


def test_the_target_of_the_batches_makes_up_for_what_the_kl_falls_by_on_validation():
    """Training stays at its target; three fifths of it are left on validation."""
    control = pressing()
    for _ in range(20):
        control.correct(control.target.item(), 0.6 * control.target.item())
    assert control.target.item() == pytest.approx(0.2, rel=1e-3)


@pytest.mark.parametrize(("training", "validation"), [(0.5, 0.1), (0.02, 0.1), (0.12, 0.0)])
def test_a_kl_far_from_its_target_or_without_one_on_validation_corrects_nothing(training, validation):
    control = pressing()
    control.correct(training, validation)
    assert control.target.item() == pytest.approx(0.12)


@pytest.mark.parametrize(("beta", "target"), [(0.01, 0.12), (0.029, 0.12), (0.031, 0.12 * 2**0.5)])
def test_while_beta_lies_near_its_least_nothing_is_corrected(beta, target):
    """A KL that rises from nothing passes its target in training before the averaged weights follow."""
    control = pressing(beta)
    control.correct(0.12, 0.06)
    assert control.target.item() == pytest.approx(target)


def test_a_wide_gap_is_made_up_for_in_part_only():
    control = pressing()
    for _ in range(40):
        control.correct(control.target.item(), 1e-4)
    assert control.target.item() == pytest.approx(3 * 0.12, rel=1e-3)
