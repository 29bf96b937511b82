"""vae.pieces: what they depend on, and that the codes of songs steer them."""

import math

import numpy as np
import pytest
import torch
from tiny import CHORDS, CPU, MUSIC, SMALL, make_model, make_music, make_trainer, noise_for, randomise
from torch.utils._python_dispatch import TorchDispatchMode

from vae.config import MOST_STEPS, Config
from vae.corpus import Split
from vae.encoding import DataSpec
from vae.models.likelihood import moments_of
from vae.models.registry import FAMILIES, build_model
from vae.pieces import between, draw, interpolate, posteriors, vary
from vae.windows import Songs


def random_state(seed):
    return torch.Generator().manual_seed(seed)


def song_of(*chords):
    """Each chord for six steps."""
    return np.repeat(np.array(chords, np.uint8), 6, axis=0)


@pytest.mark.parametrize(("kind", "shape", "dtype"), [("binary", (3, 8, 6), np.uint8), ("unit", (3, 1, 5), np.float32)])
def test_draws_have_the_shape_and_type_of_the_data(kind, shape, dtype):
    samples = draw(make_model(kind, "dense"), 3, 1.0, 0)
    assert samples.shape == shape
    assert samples.dtype == dtype
    assert samples.min() >= 0
    assert samples.max() <= 1


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_draws_pieces_that_depend_on_the_seed_and_their_number_alone(family):
    params = SMALL[family] | {"window": MUSIC.longest_song, "dropout": 0.5, "input_dropout": 0.5}
    model = build_model(Config.for_data(MUSIC, params), MUSIC)
    many = draw(model, 20, 1.0, 5)
    steps = MUSIC.longest_song if family == "dense" else 16  # as long as most songs, though windows hold more
    assert many.shape == (20, steps, 88)
    assert model.training
    assert np.array_equal(many[:3], draw(model.eval(), 3, 1.0, 5))
    assert not np.array_equal(many[:3], draw(model, 3, 1.0, 6))
    assert len(np.unique(many.reshape(20, -1), axis=0)) == 20


@pytest.mark.parametrize(
    ("window", "natural", "typical", "steps"), [(20, 6, 12, 12), (20, 6, 0, 6), (20, 14, 12, 14), (8, 6, 12, 12)]
)
def test_a_piece_is_as_long_as_most_songs(window, natural, typical, steps):
    spec = DataSpec("binary", 6, 1, 3, 100.0, natural, 20, typical_song=typical)
    model = build_model(Config.for_data(spec, SMALL["recurrent"] | {"window": window}), spec)
    assert draw(model, 2, 1.0, 0).shape == (2, steps, 6)


@pytest.mark.parametrize(("natural", "typical"), [(6, 25_000), (25_000, 0)])
def test_a_piece_is_not_as_long_as_songs_without_end(natural, typical):
    spec = DataSpec("binary", 6, 1, 3, 100.0, natural, 25_000, typical_song=typical)
    params = SMALL["recurrent"] | {"window": 1024, "head": "independent", "recall_width": 0}
    assert draw(build_model(Config.for_data(spec, params), spec), 1, 1.0, 0).shape == (1, MOST_STEPS, 6)


class Largest(TorchDispatchMode):
    """Watches for the largest tensor of floats that is made."""

    numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        if isinstance(made, torch.Tensor) and made.is_floating_point():
            self.numbers = max(self.numbers, made.numel())
        return made


def test_of_long_pieces_only_windows_are_floats():
    spec = DataSpec("binary", 6, 1, 3, 100.0, 16, 400, typical_song=400)
    params = SMALL["recurrent"] | {"window": 16, "head": "independent", "recall_width": 0}
    model = build_model(Config.for_data(spec, params), spec)
    song = np.zeros((400, 6), np.uint8)
    for write in (lambda: draw(model, 20, 1.0, 0), lambda: interpolate(model, song, song, 2, 1.0, 0)):
        with Largest() as largest:
            write()
        assert 0 < largest.numbers < 400 * 6


@torch.no_grad()
def test_a_piece_longer_than_a_window_goes_on_where_each_window_ends():
    """A model that strikes all keys where a song begins, and none after any step: only the first step sounds."""
    spec = DataSpec("binary", 6, 1, 3, 100.0, 4, 20, typical_song=11)
    params = SMALL["recurrent"] | {"window": 4, "head": "independent", "recall_width": 0}
    model = build_model(Config.for_data(spec, params), spec)
    for weights in model.parameters():
        weights.zero_()
    model.writer.past.start.fill_(50.0)
    model.writer.past.reader.step.bias.fill_(-50.0)
    model.writer.lstm.layers[0].weight_ih_l0.fill_(1.0)
    model.head.output.weight.fill_(100.0)
    model.head.output.bias.fill_(-30.0)
    piece = draw(model, 1, 1.0, 0)[0]
    assert piece.shape == (11, 6)
    assert piece[0].all()
    assert not piece[1:].any()


def test_drawing_leaves_the_random_state_of_the_process():
    before = torch.get_rng_state()
    draw(make_model("binary", "recurrent"), 3, 1.0, 0)
    assert torch.equal(torch.get_rng_state(), before)


def test_temperature_goes_from_certainty_to_coins():
    corpus = make_music()
    config = Config.for_data(MUSIC, SMALL["dense"])
    model = build_model(config, MUSIC, moments_of(corpus.splits["train"], MUSIC))
    assert draw(model, 64, 1e6, 0).mean() == pytest.approx(0.5, abs=0.01)
    assert draw(model, 64, 1e-6, 0).mean() < 0.01  # no key is likelier than not in data this sparse


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_a_song_is_read_window_after_window(family):
    model, song = randomise(make_model("binary", family)).train(), song_of(*CHORDS, CHORDS[0])[:20]
    read, window = posteriors(model, song), model.config.window
    assert model.training
    assert [part.steps for part in read] == ([6, 6, 6, 2] if family == "hierarchical" else [8, 8, 4])  # whole bars
    songs = Songs(Split(song, np.array([20])), CPU)
    for i, part in enumerate(read):
        batch = songs.batch(songs.partition(window)[i : i + 1], model.padded_to(part.steps))
        for found, expected in zip(
            part.posterior, model.eval().code(batch, noise_for(model, batch)).posterior, strict=True
        ):
            torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("family", FAMILIES)
def test_pieces_after_a_song_are_as_long_and_depend_on_the_seed_and_their_number(family):
    model, song = randomise(make_model("binary", family, dropout=0.5)), song_of(*CHORDS)[:17]
    for amount in (0.0, 0.5):
        pieces = vary(model, song, amount, 4, 1.0, 0)
        assert (pieces.shape, pieces.dtype) == ((4, 17, 6), np.uint8)
        assert np.array_equal(pieces[:2], vary(model, song, amount, 2, 1.0, 0))
        assert not np.array_equal(pieces, vary(model, song, amount, 4, 1.0, 1))
        assert len(np.unique(pieces, axis=0)) == 4
        assert np.array_equal(pieces, vary(model.train(), song, amount, 4, 1.0, 0))  # dropout is off
        model.eval()


def test_nothing_is_left_of_a_song_at_the_full_amount():
    model = randomise(make_model("binary", "recurrent"))
    first, other = (vary(model, song_of(chord), 1.0, 3, 1.0, 0) for chord in CHORDS[:2])
    assert np.array_equal(first, other)
    first, other = (vary(model, song_of(chord), 0.0, 3, 1.0, 0) for chord in CHORDS[:2])
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_interpolation_begins_with_the_one_songs_codes_and_ends_with_the_others(family):
    """All with the same random numbers, so that equal codes give equal pieces."""
    model = randomise(make_model("binary", family), gain=2.5)
    first, last = song_of(CHORDS[0], *CHORDS), song_of(CHORDS[1], CHORDS[1])
    with torch.no_grad():
        (model.correction if family == "sequential" else model.posterior).weight.mul_(4.0)  # codes far apart
    pieces = interpolate(model, first, last, 5, 1.0, 0)
    assert pieces.shape == (5, 12, 6)
    assert np.array_equal(pieces[0], interpolate(model, first[:12], first[:12], 1, 1.0, 0)[0])
    assert np.array_equal(pieces[-1], interpolate(model, last, last, 3, 1.0, 0)[1])
    assert not np.array_equal(pieces[0], pieces[-1])
    assert np.array_equal(pieces[2], interpolate(model, first, last, 1, 1.0, 0)[0])


@pytest.mark.parametrize(
    ("a", "b", "middle"),
    [
        ([1.0, 0.0], [0.0, 1.0], [math.sqrt(0.5), math.sqrt(0.5)]),
        ([2.0, 0.0], [2.0, 0.0], [2.0, 0.0]),
        ([3.0, 0.0], [-3.0, 0.0], [0.0, 0.0]),  # no arc is shorter than others
    ],
)
def test_codes_move_on_an_arc(a, b, middle):
    a, b = torch.tensor([a]), torch.tensor([b])
    torch.testing.assert_close(between(a, b, 0.5), torch.tensor([middle]), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(between(a, b, 0.0), a)
    torch.testing.assert_close(between(a, b, 1.0), b)


@pytest.mark.parametrize("family", ["recurrent", "sequential"])
def test_a_song_steers_a_trained_model(family):
    """Songs keep to one of three chords; the decoder often does not see the step before."""
    trainer = make_trainer("binary", family, epoch_steps=3000, head="independent", step_dropout=0.5)
    for _ in range(6):
        trainer.train_epoch()
    model = trainer.model.eval()
    kept = np.array(
        [
            [(vary(model, song, amount, 16, 1.0, 0) == song).mean() for amount in (0.0, 0.5, 1.0)]
            for song in (song_of(chord, chord) for chord in CHORDS)
        ]
    ).mean(0)
    assert kept[0] > kept[1] > kept[2]
    assert kept[0] - kept[2] > 0.1
    first, last = (song_of(chord, chord) for chord in CHORDS[:2])
    pieces = np.mean([interpolate(model, first, last, 3, 1.0, seed) == first for seed in range(16)], axis=(0, 2, 3))
    assert pieces[0] > pieces[-1] + 0.1
