"""vae.models.layers: what is read, that padding has no part, loops over the past, and writing as reading has it."""

from dataclasses import replace

import pytest
import torch
from tiny import BINARY, SMALL, make_batch, randomise
from torch import nn

from vae.config import Config
from vae.models import layers
from vae.models.dropout import Dropout
from vae.models.heads import build_head
from vae.models.layers import Lstm, PastReader, Recall, StepReader, Summary, Writer, read_code, reverse, rotate

LENGTHS = [8, 5, 1, 7]


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def make(layer, *arguments, **params):
    """A layer in evaluation mode with random weights; transposition is known up to 2 semitones."""
    config = Config(**SMALL["recurrent"] | {"transpose": 2, **params})
    head = build_head(config, BINARY, None, config.rnn_width)
    return randomise(layer(config, BINARY, head, *arguments).eval())


def batch_of(lengths=LENGTHS, window=8, seed=0):
    batch = make_batch("binary", window, lengths, seed)
    return replace(batch, shift=torch.arange(len(lengths)) % 5 - 2)


# Dropping


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_a_unit_is_dropped_as_often_as_asked_and_the_mean_stays(rate):
    layer, x = Dropout(rate), torch.ones(101, 997)  # no multiple of the eight bytes of a draw
    torch.manual_seed(0)
    found = layer(x)
    share = float((found == 0).double().mean())
    assert abs(share - rate) < 1 / 512 + 4 * (rate * (1 - rate) / x.numel()) ** 0.5  # rounding, four standard errors
    kept = found[found != 0]
    torch.testing.assert_close(kept, kept.new_full(kept.shape, 256 / (256 - round(256 * rate))))
    assert len({tuple((row[:64] == 0).tolist()) for row in found}) == 101  # rows differ


def test_the_gradient_is_dropped_with_the_units():
    x = random(50, 40).requires_grad_()
    found = Dropout(0.5)(x)
    found.sum().backward()
    torch.testing.assert_close(x.grad, torch.where(found == 0, 0.0, 2.0))


def test_in_use_or_at_rate_zero_nothing_is_dropped():
    x = random(5, 4)
    assert torch.equal(Dropout(0.9).eval()(x), x)
    assert torch.equal(Dropout(0.0)(x), x)


# Reading


@torch.no_grad()
def test_a_step_is_read_with_its_transposition():
    reader, x = make(StepReader, 4), batch_of().x
    for semitones in (-2, 0, 2):
        found = reader(x, torch.full((4,), semitones))
        torch.testing.assert_close(found, reader.step(x) + reader.shift.weight[semitones + 2])


def test_a_transposition_says_nothing_before_training():
    config = Config(**SMALL["recurrent"] | {"transpose": 2})
    reader = StepReader(config, BINARY, build_head(config, BINARY, None, 10), 4)
    x = batch_of().x
    assert torch.equal(reader(x, torch.full((4,), -2)), reader(x, torch.full((4,), 1)))


def test_a_code_has_little_say_before_training():
    layer, z = read_code(16, 200), random(50, 16)
    assert 0.001 < (layer(z) - layer.bias).std() < 0.1  # about 0.6 in other layers


@torch.no_grad()
def test_the_past_of_a_step_is_the_step_before_or_the_start():
    past, batch = make(PastReader, 4), batch_of()
    found = past(batch)
    for row in range(4):
        shift = batch.shift[row : row + 1]
        start = past.start + past.reader.key(shift)[0]  # the key is told before the first step
        assert torch.equal(found[row, 0], start) == (row == 0)
        if row:
            torch.testing.assert_close(found[row, :1], past.reader(batch.previous[row, None, None], shift)[0])
        for step in range(1, 8):
            torch.testing.assert_close(found[row, step], past.reader(batch.x[row, step - 1, None, None], shift)[0, 0])


@torch.no_grad()
def test_sampling_reads_the_past_as_scoring_does():
    past, batch = make(PastReader, 4), replace(batch_of(), shift=torch.zeros(4, dtype=torch.long))
    found = past(batch)
    torch.testing.assert_close(past.first(4, batch), found[:, :1])
    torch.testing.assert_close(past.first(1, None), found[:1, :1])
    for step in range(1, 8):
        torch.testing.assert_close(past.one(batch.x[:, step - 1]), found[:, step, None])


@torch.no_grad()
def test_steps_are_dropped_whole_in_training_only():
    past, batch = make(PastReader, 4, step_dropout=0.5), batch_of([8] * 40)
    plain = past(batch)
    past.train()
    found = past(batch)
    silent = past.reader(torch.zeros_like(batch.x), batch.shift)
    same, dropped = torch.isclose(found, plain).all(2), torch.isclose(found, silent).all(2)
    assert same[0, 0]  # the start is no step
    assert (same | dropped).all()
    assert 0.3 < (dropped & ~same).float().mean() < 0.6
    past.eval()
    assert torch.equal(past(batch), plain)


@pytest.mark.parametrize("name", ["input_dropout", "step_dropout"])
def test_what_the_decoder_sees_is_thinned_in_training_only(name):
    past, batch = make(PastReader, 4, **{name: 0.5}), batch_of()
    assert torch.equal(past(batch), past(batch))
    past.train()
    assert not torch.equal(past(batch), past(batch))


@torch.no_grad()
def test_a_step_that_is_hidden_is_not_recalled_either():
    writer, batch = make(Writer, 8, step_dropout=1.0, recall_width=4), batch_of()
    other = replace(batch, x=batch.x.clone())
    other.x[:, 0] = 1.0 - other.x[:, 0]
    assert not torch.equal(writer(batch), writer(other))
    writer.train()
    assert torch.equal(writer(batch), writer(other))


# The summary of a window


@torch.no_grad()
def test_reverse_turns_real_steps_around():
    x = torch.arange(1.0, 9.0).repeat(4, 1)[..., None].repeat(1, 1, 3)
    found = reverse(x, torch.tensor(LENGTHS))
    for row, length in enumerate(LENGTHS):
        assert torch.equal(found[row, :length], x[row, :length].flip(0))
    assert torch.equal(reverse(found, torch.tensor(LENGTHS))[1, :5], x[1, :5])


@torch.no_grad()
def test_a_summary_is_that_of_a_loop_over_windows():
    summary, batch = make(Summary), batch_of()
    found = summary(batch)
    for row, length in enumerate(LENGTHS):
        read = torch.relu(summary.reader(batch.x[row, None, :length], batch.shift[row, None]))
        states = torch.cat([summary.forward_lstm(read)[0], summary.backward_lstm(read.flip(1))[0]], dim=2)[0]
        torch.testing.assert_close(found[row], torch.cat([states.mean(0), states.amax(0)]))
    assert found.shape == (4, summary.outputs)


@torch.no_grad()
def test_a_summary_ignores_padding_and_what_lies_in_it():
    summary, batch = make(Summary), batch_of()
    longer = batch_of([*LENGTHS, 12], window=12)
    x = torch.where(longer.mask[..., None], longer.x, 7.0)
    x[:4, :8] = torch.where(batch.mask[..., None], batch.x, 7.0)
    assert not torch.equal(x[:4, :8], batch.x)
    found = summary(replace(longer, x=x))
    torch.testing.assert_close(found[:4], summary(batch), rtol=1e-5, atol=1e-6)


# Recall


def test_rotary_positions_tell_how_long_ago_something_was():
    query, key = random(1, 6), random(1, 6, seed=1)

    def product(now, ago):
        return rotate(query, now) @ rotate(key, now - ago).T

    torch.testing.assert_close(product(9, 2), product(100, 2))
    assert not torch.isclose(product(9, 2), product(9, 3), atol=1e-3)


def turned(x, step):
    """Rotary positions by complex numbers: unit i is the real part of one, unit i + E / 2 its imaginary part."""
    half = len(x) // 2
    turn = torch.polar(torch.ones(half), step / 10_000.0 ** (torch.arange(half) / half))
    numbers = torch.complex(x[:half], x[half:]) * turn
    return torch.cat([numbers.real, numbers.imag])


def naive_recall(recall, states, steps, longest_lag):
    """Step after step, moment after moment: a softmax over none, which scores 0, and all earlier moments."""
    found = torch.zeros_like(states)
    for row in range(states.shape[0]):
        for now in range(states.shape[1]):
            query = recall.query(states[row, now])
            scores, values = [torch.tensor(0.0)], [recall.no_moment]
            for t in range(now):
                turned_by = min(now - t, longest_lag)
                scores.append(turned(query, turned_by) @ recall.key(states[row, t]) / len(query) ** 0.5)
                values.append(recall.value(steps[row, t]))
            recalled = torch.stack(scores).softmax(0) @ torch.stack(values)
            found[row, now] = recall.output(recalled)
    return found


@torch.no_grad()
@pytest.mark.parametrize("shown", [1, 6, 100])
@pytest.mark.parametrize("at_once", [3, 256])
def test_recall_is_a_loop_over_the_past(shown, at_once, monkeypatch):
    monkeypatch.setattr(layers, "_QUERIES", at_once)
    recall, states, steps = randomise(Recall(10, 4, 6, shown)), random(3, 7, 10), random(3, 7, 4, seed=1)
    found = recall(states, steps)
    expected = naive_recall(recall, states, steps, max(1, shown // 2))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    memory = recall.begin(3)
    for now in range(7):
        state, step = states[:, now, None], steps[:, now, None]
        torch.testing.assert_close(recall.one(state, memory), found[:, now, None], rtol=1e-4, atol=1e-5)
        memory = recall.remember(state, step, memory)


@torch.no_grad()
def test_where_there_is_room_moments_are_remembered_in_place():
    recall, states, steps = randomise(Recall(10, 4, 6, 6)), random(3, 7, 10), random(3, 7, 4, seed=1)
    begun = recall.remember(states[:, :2], steps[:, :2], recall.begin(3))
    roomy, plain = begun.with_room(5), begun
    places = {roomy.keys.data_ptr(), roomy.values.data_ptr()}
    for now in range(2, 7):
        state, step = states[:, now, None], steps[:, now, None]
        assert torch.equal(recall.one(state, roomy), recall.one(state, plain))
        roomy, plain = recall.remember(state, step, roomy), recall.remember(state, step, plain)
    assert {roomy.keys.data_ptr(), roomy.values.data_ptr()} == places
    assert begun.keys.shape == (3, 3, 12)  # of its own
    whole = recall.remember(states, steps, recall.begin(3))
    for part in (roomy, plain):
        torch.testing.assert_close(part, whole)


@torch.no_grad()
def test_recall_takes_all_that_is_far_for_equally_far():
    recall, states, steps = randomise(Recall(10, 4, 6, 8)), random(1, 9, 10), random(1, 9, 4, seed=1)

    def last(states, steps):
        return recall(states, steps)[:, -1]

    def swapped(x, i, j):
        order = list(range(9))
        order[i], order[j] = j, i
        return x[:, order]

    found = last(states, steps)
    torch.testing.assert_close(last(swapped(states, 0, 3), swapped(steps, 0, 3)), found)
    assert not torch.isclose(last(swapped(states, 0, 5), swapped(steps, 0, 5)), found, atol=1e-3).all()


def test_recall_sees_neither_the_present_step_nor_the_future():
    recall, states, steps = randomise(Recall(10, 4, 6, 6)), random(3, 7, 10), random(3, 7, 4, seed=1)
    for leaf in (states, steps):
        leaf.requires_grad_()
    found = recall(states, steps)
    for now in range(7):
        by_state, by_step = torch.autograd.grad(found[:, now].square().sum(), (states, steps), retain_graph=True)
        assert not by_state[:, now + 1 :].any()
        assert not by_step[:, now:].any()
        assert by_step[:, :now].any(2).all()


# The writer


def test_lstms_upon_each_other_are_pytorchs():
    stacked, oracle = Lstm(10, 2, 0.25, 0.0), nn.LSTM(10, 10, 2, batch_first=True)
    for i, layer in enumerate(stacked.layers):
        for name, weights in layer.named_parameters():
            oracle.get_parameter(name.replace("l0", f"l{i}")).data.copy_(weights)
    x, before = random(3, 7, 10), [(random(1, 3, 10, seed=i), random(1, 3, 10, seed=9 + i)) for i in (1, 2)]
    stacked.eval()
    expected, (h, c) = oracle(x, tuple(torch.cat(part) for part in zip(*before, strict=True)))
    found, left = stacked(x, before)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(torch.cat([state[0] for state in left]), h)
    torch.testing.assert_close(torch.cat([state[1] for state in left]), c)
    stacked.train()
    below, _ = stacked.layers[0](x)
    seen = []
    stacked.layers[1].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    stacked(x)
    dropped = seen[0] == 0
    assert 0.1 < dropped.float().mean() < 0.4
    torch.testing.assert_close(seen[0][~dropped], below[~dropped] / 0.75)


def test_weights_between_states_are_dropped_in_training_for_all_steps_alike():
    lstm, x = Lstm(10, 1, 0.0, 0.25), random(4, 9, 10)
    plain, (layer,) = lstm.eval()(x)[0], lstm.layers
    torch.testing.assert_close(plain, layer(x)[0])
    torch.manual_seed(0)
    found, _ = lstm.train()(x)
    torch.manual_seed(0)
    weight = lstm.weight_dropout(layer.weight_hh_l0)
    assert 0.1 < (weight == 0).float().mean() < 0.4
    found.sum().backward()
    assert torch.equal(layer.weight_hh_l0.grad != 0, weight != 0)
    assert all(known is own for known, own in zip(layer._flat_weights, layer.parameters(), strict=True))
    with torch.no_grad():
        layer.weight_hh_l0.copy_(weight)
        torch.testing.assert_close(found, layer(x)[0])


@torch.no_grad()
@pytest.mark.parametrize("params", [{}, {"recall_width": 0}, {"rnn_layers": 2}], ids=str)
def test_writing_step_by_step_is_reading_what_was_written(params):
    writer = make(Writer, 8, **params)
    batch = replace(batch_of(), shift=torch.zeros(4, dtype=torch.long))
    into, onto = random(4, 1, 10), random(4, 1, 10, seed=1)
    expected = writer(batch, into, onto)
    pen = writer.begin(4, batch)
    for step in range(8):
        state, pen = writer.next(pen, into, onto)
        torch.testing.assert_close(state, expected[:, step, None], rtol=1e-4, atol=1e-5)
        pen = writer.write(pen, batch.x[:, step])


@torch.no_grad()
def test_a_writer_copies_its_memory_once_however_much_it_writes(monkeypatch):
    writer, x, places, remember = make(Writer, 8), random(9, 4, 6), [], Recall.remember

    def look(recall, *arguments):
        memory = remember(recall, *arguments)
        places.append(memory.keys.data_ptr())
        return memory

    pen, states = writer.begin(4, None), []
    for step in x:
        state, pen = writer.next(pen)
        states.append(state)
        pen = writer.write(pen, step)
    monkeypatch.setattr(Recall, "remember", look)
    begun, played = writer.begin(4, None), []
    written = writer.play(begun, 9, lambda state, step: (played.append(state), x[step])[1])
    assert torch.equal(written, x.transpose(0, 1))
    assert torch.equal(torch.cat(played), torch.cat(states))
    assert len(places) == 9
    assert len(set(places)) == 1
    assert begun.memory.length == 0


@torch.no_grad()
def test_a_writer_recalls_steps_in_the_key_that_they_are_read_in():
    writer, batch = make(Writer, 8), batch_of()
    states = writer.lstm(writer.past(batch))[0]
    steps = writer.past.reader(batch.x, batch.shift)
    recalled = naive_recall(writer.recall, states, steps, 4)
    torch.testing.assert_close(writer(batch), states + recalled, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_writer_begins_a_song_without_a_past():
    writer = make(Writer, 8)
    batch = replace(batch_of(), shift=torch.zeros(4, dtype=torch.long))
    begun = replace(batch, begins=torch.ones(4, dtype=torch.bool), previous=torch.zeros(4, 6))
    torch.testing.assert_close(writer.next(writer.begin(4, None))[0], writer(begun)[:, :1])
    assert not torch.isclose(writer(batch), writer(begun))[1:].all(2).any()


def test_a_state_has_a_gradient_by_earlier_steps_alone():
    writer, batch = make(Writer, 8), batch_of([8, 8, 8])
    x, previous = batch.x.requires_grad_(), batch.previous.requires_grad_()
    states = writer(replace(batch, x=x, previous=previous))
    for now in range(8):
        by_x, by_previous = torch.autograd.grad(states[:, now].square().sum(), (x, previous), retain_graph=True)
        assert not by_x[:, now:].any()
        assert by_x[:, :now].any(2).all()
        assert by_previous.any(1).tolist() == [False, True, True]  # the first begins its song
