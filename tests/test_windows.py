"""vae.windows: every step counts once, at any phase; the order of training goes on where it stopped."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import CPU

from vae.corpus import Split
from vae.windows import Order, Songs


def numbered(lengths):
    """Songs whose only feature counts the steps of the split, from 1."""
    steps = sum(lengths)
    return Songs(Split(np.arange(1, steps + 1, dtype=np.float32)[:, None], np.array(lengths)), CPU)


def covered(songs, plan, window):
    """The numbers of all real steps in a plan's windows."""
    batch = songs.batch(plan, window)
    return batch.x[batch.mask][:, 0].int().tolist()


@given(
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=8),
    window=st.integers(1, 35),
    seed=st.integers(0, 100),
)
@settings(max_examples=80, deadline=None)
def test_windows_partition_the_songs_at_every_phase(lengths, window, seed):
    songs = numbered(lengths)
    phase = torch.randint(window, (len(lengths),), generator=torch.Generator().manual_seed(seed))
    for plan in (songs.partition(window), songs.partition(window, phase)):
        assert covered(songs, plan, window) == list(range(1, sum(lengths) + 1))
        assert (plan.length >= 1).all()
        assert (plan.length <= window).all()
        inside = plan.start + plan.length <= (songs.starts + songs.lengths)[plan.song]
        assert inside.all()
        assert (plan.start >= songs.starts[plan.song]).all()


def test_a_phase_moves_the_cuts_to_the_left():
    songs = numbered([10])
    assert songs.partition(4).length.tolist() == [4, 4, 2]
    assert songs.partition(4, torch.tensor([1])).length.tolist() == [3, 4, 3]
    assert songs.partition(4, torch.tensor([3])).length.tolist() == [1, 4, 4, 1]


def test_a_song_that_fits_into_a_window_is_never_cut():
    songs = numbered([4, 3, 5])
    plan = songs.partition(4, torch.tensor([2, 1, 3]))
    assert list(zip(plan.song.tolist(), plan.length.tolist(), strict=True)) == [(0, 4), (1, 3), (2, 1), (2, 4)]


def test_a_batch_holds_the_steps_the_padding_and_the_step_before():
    songs = numbered([5, 3])
    batch = songs.batch(songs.partition(2), 2)
    assert batch.x[:, :, 0].tolist() == [[1, 2], [3, 4], [5, 0], [6, 7], [8, 0]]
    assert batch.mask.tolist() == [[True, True], [True, True], [True, False], [True, True], [True, False]]
    # Nothing comes before a song, not even the end of the song that lies there in memory.
    assert batch.previous[:, 0].tolist() == [0, 2, 4, 0, 7]


def test_binary_steps_become_floats():
    songs = Songs(Split(np.eye(4, dtype=np.uint8), np.array([4])), CPU)
    batch = songs.batch(songs.partition(4), 4)
    assert torch.equal(batch.x[0], torch.eye(4))


def test_each_pass_scores_every_step_once_in_another_order():
    songs = numbered([20, 11, 30])
    order = Order(songs, 4, seed=0)
    passes = []
    for _ in range(3):
        steps = []
        while len(steps) < songs.steps:
            steps += covered(songs, order.take(1), 4)
        assert sorted(steps) == list(range(1, 62))
        passes.append(steps)
    assert passes[0] != passes[1] != passes[2]


def test_cuts_differ_between_passes():
    songs = numbered([20])
    order = Order(songs, 4, seed=0)
    cuts = {int(order.take(1).start[0]) for _ in range(200)}
    assert cuts == set(range(20))


@pytest.mark.parametrize("count", [1, 5, 7, 40])
def test_a_batch_reaches_over_passes(count):
    songs = numbered([9, 8])
    order, single = Order(songs, 4, seed=3), Order(songs, 4, seed=3)
    for _ in range(4):
        plan = order.take(count)
        assert len(plan) == count
        parts = [single.take(1) for _ in range(count)]
        assert plan.start.tolist() == [int(part.start[0]) for part in parts]
        assert plan.length.tolist() == [int(part.length[0]) for part in parts]


@pytest.mark.parametrize("taken", [0, 1, 7, 8, 50])
def test_a_restored_order_goes_on_exactly(taken):
    songs = numbered([20, 11])
    order = Order(songs, 4, seed=5)
    for _ in range(taken):
        order.take(1)
    other = Order(songs, 4, seed=99)
    other.restore({name: value.clone() for name, value in order.state().items()})
    for _ in range(30):
        ours, theirs = order.take(3), other.take(3)
        assert torch.equal(ours.start, theirs.start)
        assert torch.equal(ours.length, theirs.length)
        assert torch.equal(ours.song, theirs.song)


def test_the_order_depends_on_its_seed_alone():
    songs = numbered([40, 40])
    torch.manual_seed(0)
    first = Order(songs, 4, seed=1).take(30)
    torch.manual_seed(1)
    assert torch.equal(Order(songs, 4, seed=1).take(30).start, first.start)
    assert not torch.equal(Order(songs, 4, seed=2).take(30).start, first.start)
