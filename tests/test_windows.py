"""vae.windows: every step counts once, at any phase; the order of training goes on where it stopped."""

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import CPU

from vae.corpus import Split
from vae.encoding import PITCHES
from vae.windows import Order, Songs, in_batches


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
@settings(max_examples=80)
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


def test_features_that_are_on_are_counted_without_the_device():
    """Of steps that lie elsewhere; a bound, which fits few sizes."""
    values = (torch.rand(400, 88, generator=torch.Generator().manual_seed(0)) < 0.2).numpy().astype(np.uint8)
    away = Songs(Split(values, np.array([150, 250])), torch.device("meta"))
    plan = away.partition(40)
    for part in (plan[:3], plan[3:4], plan):
        on = sum(int(values[at : at + n].sum()) for at, n in zip(part.start, part.length, strict=True))
        shape = away.shape(part, 64)
        assert shape.steps == 64
        assert on <= shape.on < on + 1024
        assert shape.on % 1024 == 0
    here = Songs(Split(values, np.array([150, 250])), CPU)
    assert here.batch(plan, 40).on is None  # where counting costs nothing


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
    assert batch.begins.tolist() == [True, False, False, True, False]
    assert batch.lengths.tolist() == [2, 2, 1, 2, 1]
    longer = songs.batch(songs.partition(2)[1:3], 5)
    assert longer.x[:, :, 0].tolist() == [[3, 4, 0, 0, 0], [5, 0, 0, 0, 0]]
    assert longer.begins.tolist() == [False, False]


def test_binary_steps_become_floats():
    songs = Songs(Split(np.eye(4, dtype=np.uint8), np.array([4])), CPU)
    batch = songs.batch(songs.partition(4), 4)
    assert torch.equal(batch.x[0], torch.eye(4))


# Transposition


def slowly_moved(row, semitones, halves):
    """A step of piano rolls moved up, key by key; what leaves the keyboard is lost."""
    moved = np.zeros_like(row)
    for half in range(halves):
        for key in range(PITCHES):
            if 0 <= key + semitones < PITCHES:
                moved[half * PITCHES + key + semitones] = row[half * PITCHES + key]
    return moved


@pytest.mark.parametrize("halves", [1, 2], ids=["roll", "roll_onset"])
def test_music_moves_by_semitones_and_leaves_the_keyboard(halves):
    values = (np.random.default_rng(0).random((9, halves * PITCHES)) < 0.5).astype(np.uint8)
    songs, shifts = Songs(Split(values, np.array([5, 4])), CPU), [0, 3, -2, 12, -12]
    plan = songs.partition(2)
    plain, moved = songs.batch(plan, 3), songs.batch(plan, 3, torch.tensor(shifts))
    assert moved.shift.tolist() == shifts
    assert torch.equal(moved.mask, plain.mask)
    assert torch.equal(moved.begins, plain.begins)
    for row, shift in enumerate(shifts):
        for before, after in (
            *zip(plain.x[row], moved.x[row], strict=True),
            (plain.previous[row], moved.previous[row]),
        ):
            np.testing.assert_array_equal(after.numpy(), slowly_moved(before.numpy(), shift, halves))
    assert moved.x.dtype == torch.float32
    assert moved.previous[1].any()


def test_a_key_at_the_rim_is_lost_and_none_comes_in():
    values = np.zeros((2, 2 * PITCHES), np.uint8)
    values[:, [0, PITCHES - 1, PITCHES]] = 1  # lowest and highest key sounding, lowest struck
    songs = Songs(Split(values, np.array([2])), CPU)
    for shift, keys in ((1, [1, PITCHES + 1]), (-1, [PITCHES - 2])):
        batch = songs.batch(songs.partition(2), 2, torch.tensor([shift]))
        assert [step.nonzero()[:, 0].tolist() for step in batch.x[0]] == [keys, keys]


def test_no_shift_is_a_shift_of_nothing():
    songs = Songs(Split(np.eye(6, 88, dtype=np.uint8), np.array([6])), CPU)
    plan = songs.partition(2)
    plain, zeros = songs.batch(plan, 2), songs.batch(plan, 2, torch.zeros(3, dtype=torch.long))
    for name in ("x", "mask", "previous", "begins", "shift"):
        assert torch.equal(getattr(plain, name), getattr(zeros, name))
    assert torch.equal(plain.shift, torch.zeros(3, dtype=torch.long))


# Batches


@given(
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=20),
    steps=st.integers(1, 60),
)
@settings(max_examples=50)
def test_groups_hold_every_window_once_and_no_more_steps_than_asked(lengths, steps):
    plan = numbered(lengths).partition(12)
    groups = list(in_batches(plan, steps))
    assert sorted(torch.cat(groups).tolist()) == list(range(len(plan)))
    for group in groups:
        assert len(group) == 1 or len(group) * plan[group].longest <= steps


def test_groups_are_counted_as_long_as_a_model_pads_them():
    plan = numbered([5, 2, 2, 2, 1]).partition(12)
    assert [len(group) for group in in_batches(plan, 8)] == [1, 4]
    assert [len(group) for group in in_batches(plan, 8, lambda longest: -(-longest // 4) * 4)] == [1, 2, 2]
    assert [len(group) for group in in_batches(plan, 8, lambda _: 12)] == [1] * 5


# The order of training


def taken(order, steps):
    """The next batches, so many steps together."""
    batches, total = [], 0
    while total < steps:
        batches.append(order.take())
        total += batches[-1].steps
    assert total == steps
    return batches


def lengths_like_music(songs, longest, seed=0):
    return np.random.default_rng(seed).integers(1, longest, songs, endpoint=True).tolist()


@pytest.mark.parametrize(("window", "batch_steps"), [(4, 20), (30, 40), (30, 10)])
def test_each_pass_holds_every_step_once_in_another_order(window, batch_steps):
    songs = numbered(lengths_like_music(40, 30))
    assert songs.steps > 8 * batch_steps  # more than half a pool: a pass is once around
    order, passes = Order(songs, window, batch_steps, seed=0), []
    for _ in range(3):
        steps = [step for plan in taken(order, songs.steps) for step in covered(songs, plan, window)]
        assert sorted(steps) == list(range(1, songs.steps + 1))
        passes.append(steps)
    assert passes[0] != passes[1] != passes[2]


def test_a_small_corpus_goes_around_several_times_a_pass():
    songs = numbered([9, 8, 3])
    order = Order(songs, 4, batch_steps=30, seed=0)
    around = 16 * 30 // 20
    for _ in range(3):
        batches = taken(order, around * 20)
        counts = Counter(step for plan in batches for step in covered(songs, plan, 4))
        assert counts == dict.fromkeys(range(1, 21), around)
        assert all(plan.steps <= 34 for plan in batches)
        assert around * 20 / len(batches) >= 26


@pytest.mark.parametrize(("window", "batch_steps"), [(8, 50), (40, 100), (40, 1000), (16, 16)])
def test_batches_have_about_as_many_steps_as_asked(window, batch_steps):
    songs = numbered(lengths_like_music(150, 40))
    order = Order(songs, window, batch_steps, seed=1)
    batches = [order.take() for _ in range(200)]
    sizes, filled = np.array([(plan.steps, len(plan) * plan.longest) for plan in batches]).T
    room = window + 0.1 * batch_steps
    assert (sizes <= batch_steps + room).all()
    assert (filled < batch_steps - room).mean() < 0.08  # the last of a pass, which has 16 or more
    assert sizes.mean() == pytest.approx(batch_steps, rel=0.1)


def test_a_window_that_is_longer_than_a_batch_is_a_batch():
    order = Order(numbered([50] * 20), 50, batch_steps=10, seed=0)
    assert all((len(plan), plan.steps) == (1, 50) for plan in taken(order, 1000))


@pytest.mark.parametrize("batch_steps", [200, 2000])
def test_windows_of_like_length_come_together(batch_steps):
    songs = numbered(lengths_like_music(400, 100))
    order = Order(songs, 100, batch_steps, seed=0)
    batches = taken(order, songs.steps)
    padded = sum(len(plan) * plan.longest for plan in batches)
    assert padded < 1.25 * songs.steps  # about 1.9 if windows came as they are
    order = [plan.longest for plan in batches]
    assert order not in (sorted(order), sorted(order, reverse=True))


def test_a_long_song_among_tiny_ones_does_not_pad_them_all():
    songs = numbered([1] * 2000 + [300] * 12)
    order = Order(songs, 300, batch_steps=200, seed=0)
    batches = taken(order, songs.steps)
    assert all(len(plan) == 1 or len(plan) * plan.longest <= 250 for plan in batches)
    assert sum(plan.steps for plan in batches) == songs.steps


def test_short_windows_beside_full_ones_leave_little_room_for_padding():
    """Random phases begin and end songs with windows of any length."""
    order = Order(numbered([1000] * 60), 256, batch_steps=2048, seed=0)
    batches = taken(order, 60_000)
    assert max(len(plan) * plan.longest for plan in batches) <= 2560
    assert 60_000 / len(batches) > 0.9 * 2048


def test_windows_are_counted_as_long_as_a_model_pads_them():
    order = Order(numbered([4, 7, 11] * 100 + [3000] * 20), 256, 2048, seed=0, padded_to=lambda _: 256)
    assert max(len(order.take()) for _ in range(200)) == 32  # four times 2048 steps


def test_cuts_differ_between_passes():
    songs = numbered([20])
    order = Order(songs, 4, batch_steps=8, seed=0)
    starts = {start for _ in range(100) for start in order.take().start.tolist()}
    assert starts == set(range(20))


@pytest.mark.parametrize(("window", "grid"), [(12, 4), (12, 12), (10, 4)])
def test_cuts_keep_to_the_grid(window, grid):
    """Every window but a song's first begins whole windows and grid cells after the left end of the cuts."""
    songs = numbered([40])
    order = Order(songs, window, batch_steps=20, seed=0, grid=grid)
    starts = {start for _ in range(200) for start in order.take().start.tolist()}
    phases = range(0, window, grid)
    expected = {max(0, at - phase) for phase in phases for at in range(0, 40 + phase, window)}
    assert starts == expected
    if window % grid == 0:
        assert all(start % grid == 0 for start in starts)


def same(left, right):
    return all(torch.equal(getattr(left, name), getattr(right, name)) for name in ("song", "start", "length"))


@pytest.mark.parametrize("lengths", [[20, 11], [30] * 40], ids=["small", "large"])
@pytest.mark.parametrize("count", [0, 1, 7, 33, 50])
def test_a_restored_order_goes_on_exactly(count, lengths):
    songs = numbered(lengths)
    order = Order(songs, 4, batch_steps=32, seed=5)
    for _ in range(count):
        order.take()
    other = Order(songs, 4, batch_steps=32, seed=99)
    other.restore({name: value.clone() for name, value in order.state().items()})
    for _ in range(80):
        assert same(order.take(), other.take())


def test_the_order_depends_on_its_seed_alone():
    songs = numbered([40, 40])
    torch.manual_seed(0)
    first = Order(songs, 4, 24, seed=1).take()
    torch.manual_seed(1)
    assert same(Order(songs, 4, 24, seed=1).take(), first)
    assert not same(Order(songs, 4, 24, seed=2).take(), first)
