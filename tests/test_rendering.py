"""vae.rendering: files a musician can use, and sound."""

import numpy as np
import pretty_midi
import pytest
from scipy.io import wavfile

from sweep.final import heard
from vae.encoding import LOWEST_PITCH, PITCHES, DataSpec, decode
from vae.errors import UserError
from vae.rendering import AUDIO_RATE, synthesise, write

MUSIC = DataSpec("roll_onset", 2 * PITCHES, 4, 16, 90.0, 16, 32)


def contents(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_midi_holds_the_notes_of_the_samples(tmp_path):
    samples = (np.random.default_rng(1).random((2, 16, 176)) < 0.05).astype(np.uint8)
    assert write(samples, MUSIC, tmp_path / "out", "tunes") == ["000.mid", "001.mid", "samples.png"]
    assert sorted(contents(tmp_path / "out")) == ["000.mid", "001.mid", "samples.png"]
    midi = pretty_midi.PrettyMIDI(str(tmp_path / "out" / "001.mid"))
    (instrument,) = midi.instruments
    assert instrument.name == "tunes 001"
    assert instrument.program == 0
    assert midi.get_tempo_changes()[1] == pytest.approx([90.0], rel=1e-5)
    step = 60 / 90 / 4  # seconds
    found = sorted((n.pitch, round(n.start / step), round(n.end / step)) for n in instrument.notes)
    assert found == sorted(map(tuple, decode(samples[1], "roll_onset").tolist()))


def test_a_silent_sample_is_written_too(tmp_path):
    write(np.zeros((1, 16, 176), np.uint8), MUSIC, tmp_path, "quiet")
    assert (tmp_path / "000.mid").read_bytes().startswith(b"MThd")


def test_a_smaller_run_leaves_no_pieces_of_a_larger_one(tmp_path):
    write(np.ones((5, 16, 176), np.uint8), MUSIC, tmp_path, "tunes")
    (tmp_path / "mine.mid").write_bytes(b"kept")
    write(np.ones((2, 16, 176), np.uint8), MUSIC, tmp_path, "tunes")
    assert sorted(contents(tmp_path)) == ["000.mid", "001.mid", "mine.mid", "samples.png"]


def test_sound_is_written_if_it_is_asked_for_and_goes_with_its_pieces(tmp_path):
    samples = np.zeros((2, 16, 176), np.uint8)
    samples[:, :8, 40] = 1
    write(samples, MUSIC, tmp_path, "tunes", sound=True)
    assert sorted(contents(tmp_path)) == ["000.mid", "000.wav", "001.mid", "001.wav", "samples.png"]
    rate, sound = wavfile.read(tmp_path / "001.wav")
    assert (rate, sound.dtype) == (AUDIO_RATE, np.int16)
    heard = synthesise(samples[1], MUSIC)
    assert np.abs(sound / 32767 - heard).max() < 1e-4
    assert np.abs(sound).max() > 3000
    write(samples[:1], MUSIC, tmp_path, "tunes", sound=True)
    assert sorted(contents(tmp_path)) == ["000.mid", "000.wav", "samples.png"]
    write(samples, MUSIC, tmp_path, "others")
    assert sorted(contents(tmp_path)) == ["000.mid", "001.mid", "samples.png"]


@pytest.mark.parametrize("name", ["001.mid", "000.wav", "123.mid", "samples.png"])
def test_files_of_the_users_own_are_not_replaced(tmp_path, name):
    (tmp_path / name).write_bytes(b"mine")
    with pytest.raises(UserError, match=rf"{name}: would be lost"):
        write(np.ones((2, 16, 176), np.uint8), MUSIC, tmp_path, "tunes", sound=True)
    assert contents(tmp_path) == {name: b"mine"}


def test_where_no_picture_can_be_drawn_no_piece_is_left(tmp_path):
    samples = np.ones((2, 16, 176), np.uint8)
    with pytest.raises(TypeError):  # a surrogate can't be drawn
        write(samples, MUSIC, tmp_path, "tunes", {0: "\udce9"})
    assert contents(tmp_path) == {}
    write(samples, MUSIC, tmp_path, "tunes")


def test_a_note_sounds_at_its_frequency():
    sample = np.zeros((16, 176), np.uint8)
    sample[:, 69 - LOWEST_PITCH] = 1  # A4
    sound = synthesise(sample, MUSIC, rate=8000)
    assert sound.dtype == np.float32
    assert np.abs(sound).max() <= 1.0
    strongest = np.abs(np.fft.rfft(sound)).argmax() * 8000 / len(sound)
    assert strongest == pytest.approx(440.0, abs=1.0)
    assert len(sound) / 8000 == pytest.approx(16 / 4 * 60 / 90, abs=1.1)  # the last note rings on


def test_long_pieces_sound_as_in_one_go(monkeypatch):
    rng = np.random.default_rng(0)
    sample = np.kron(rng.random((30, 176)) < 0.03, np.ones((4, 1))).astype(np.uint8)
    sample[70:] = 0  # silence at the end
    whole = synthesise(sample, MUSIC, rate=8000)
    monkeypatch.setattr("vae.rendering._STRETCH", 3.0)
    parts = synthesise(sample, MUSIC, rate=8000)
    assert len(parts) == len(whole)
    assert np.corrcoef(parts, whole)[0, 1] > 0.98  # notes move by a fraction of a sample


def test_silence_lasts_as_long_as_its_steps():
    sound = synthesise(np.zeros((16, 176), np.uint8), MUSIC, rate=900)
    assert np.array_equal(sound, np.zeros(2400, np.float32))  # 4 beats at 90 a minute


def test_of_long_pieces_the_first_minute_is_heard_in_tensorboard():
    sounds = heard(np.zeros((5, 4000, 176), np.uint8), MUSIC)
    assert [len(sound) / AUDIO_RATE for sound in sounds] == [60.0] * 4
