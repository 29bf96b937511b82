"""vae.sample: pieces that depend on the seed alone, files a musician can use, errors in one line."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pretty_midi
import pytest
import tiny
import torch
from tiny import SMALL

from sweep.final import heard
from vae import checkpoint
from vae.config import Config
from vae.corpus import Corpus, Split
from vae.encoding import LOWEST_PITCH, PITCHES, DataSpec, decode
from vae.models.registry import FAMILIES, build_model
from vae.sample import AUDIO_RATE, draw, main, synthesise, write
from vae.trainer import Trainer, TrainingData

MUSIC = DataSpec("roll_onset", 2 * PITCHES, 4, 16, 90.0, 16, 32)
REAL = DataSpec("real", 6, 1, None, 120.0, 1, 1, unit_interval=True)
BINARY = DataSpec("binary", 6, 1, None, 120.0, 8, 8)
SPECS = {"music": MUSIC, "real": REAL, "binary": BINARY}


def made_corpus(name, spec):
    generator = np.random.default_rng(0)
    values = generator.random((40 * spec.longest_song, spec.features))
    values = (values < 0.1).astype(np.uint8) if spec.is_binary else values.astype(np.float32)
    split = Split(values, np.full(40, spec.longest_song))
    return Corpus(name, spec, dict.fromkeys(("train", "valid", "test"), split), (), "0" * 64)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Checkpoints of tiny models, trained for an epoch, by kind of data."""
    directories = {}
    for name, spec in SPECS.items():
        config = Config.for_data(spec, {"family": "dense", "latent_dim": 4, "dense_width": 8, "dropout": 0.5})
        data = TrainingData.load(made_corpus(name, spec), torch.device("cpu"))
        trainer = Trainer(config, data, seed=0, epoch_steps=200)
        trainer.train_epoch()
        directories[name] = tmp_path_factory.mktemp(name)
        trainer.save(directories[name], final=True)
    return directories


@pytest.fixture
def results(trained, tmp_path):
    """A folder of results with two sweeps; `older` finished first."""
    for age, (name, kind) in enumerate({"newer": "music", "older": "real"}.items()):
        checkpoint.export(trained[kind], tmp_path / name / "best", {"trial": f"t{age}"})
        os.utime(tmp_path / name / "best" / checkpoint.METRICS, (1e9 - age, 1e9 - age))
    return tmp_path


def contents(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


@pytest.mark.parametrize(
    ("kind", "shape", "dtype"),
    [("music", (3, 16, 176), np.uint8), ("binary", (3, 8, 6), np.uint8), ("real", (3, 1, 6), np.float32)],
)
def test_draws_have_the_shape_and_type_of_the_data(trained, kind, shape, dtype):
    model = checkpoint.load(trained[kind]).model
    samples = draw(model, SPECS[kind], 3, 1.0, 0)
    assert samples.shape == shape
    assert samples.dtype == dtype
    assert samples.min() >= 0
    assert samples.max() <= 1


def test_a_piece_depends_on_the_seed_and_its_number_alone(trained):
    model = checkpoint.load(trained["music"]).model
    many = draw(model, MUSIC, 40, 1.0, 5)
    assert np.array_equal(many[:3], draw(model, MUSIC, 3, 1.0, 5))
    assert np.array_equal(many, draw(model.train(), MUSIC, 40, 1.0, 5))  # dropout is off in sampling
    assert model.training
    assert not np.array_equal(many[:3], draw(model, MUSIC, 3, 1.0, 6))
    assert len(np.unique(many.reshape(40, -1), axis=0)) == 40


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_draws_pieces_that_depend_on_the_seed_and_their_number_alone(family):
    params = SMALL[family] | {"window": tiny.MUSIC.longest_song, "dropout": 0.5, "input_dropout": 0.5}
    model = build_model(Config.for_data(tiny.MUSIC, params), tiny.MUSIC)
    many = draw(model, tiny.MUSIC, 20, 1.0, 5)
    steps = tiny.MUSIC.longest_song if family == "dense" else 16  # as long as most songs, though windows hold more
    assert many.shape == (20, steps, 88)
    assert model.training
    assert np.array_equal(many[:3], draw(model.eval(), tiny.MUSIC, 3, 1.0, 5))
    assert not np.array_equal(many[:3], draw(model, tiny.MUSIC, 3, 1.0, 6))
    assert len(np.unique(many.reshape(20, -1), axis=0)) == 20


@pytest.mark.parametrize(
    ("window", "natural", "typical", "steps"), [(20, 6, 12, 12), (20, 6, 0, 6), (20, 14, 12, 14), (8, 6, 12, 12)]
)
def test_a_piece_is_as_long_as_most_songs(window, natural, typical, steps):
    spec = DataSpec("binary", 6, 1, 3, 100.0, natural, 20, typical_song=typical)
    model = build_model(Config.for_data(spec, SMALL["recurrent"] | {"window": window}), spec)
    assert draw(model, spec, 2, 1.0, 0).shape == (2, steps, 6)


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
    model.writer.lstm.weight_ih_l0.fill_(1.0)
    model.head.output.weight.fill_(100.0)
    model.head.output.bias.fill_(-30.0)
    piece = draw(model, spec, 1, 1.0, 0)[0]
    assert piece.shape == (11, 6)
    assert piece[0].all()
    assert not piece[1:].any()


def test_drawing_leaves_the_random_state_of_the_process(trained):
    model = checkpoint.load(trained["music"]).model
    before = torch.get_rng_state()
    draw(model, MUSIC, 3, 1.0, 0)
    assert torch.equal(torch.get_rng_state(), before)


def test_temperature_goes_from_certainty_to_coins(trained):
    model = checkpoint.load(trained["music"]).model
    assert draw(model, MUSIC, 64, 1e6, 0).mean() == pytest.approx(0.5, abs=0.01)
    assert draw(model, MUSIC, 64, 1e-6, 0).mean() < 0.01  # no key is likelier than not in data this sparse


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


def test_numbered_files_of_the_users_own_stay(tmp_path):
    (tmp_path / "123.mid").write_bytes(b"mine")
    write(np.ones((2, 16, 176), np.uint8), MUSIC, tmp_path, "tunes")
    assert (tmp_path / "123.mid").read_bytes() == b"mine"


def test_a_note_sounds_at_its_frequency():
    sample = np.zeros((16, 176), np.uint8)
    sample[:, 69 - LOWEST_PITCH] = 1  # A4
    sound = synthesise(sample, MUSIC, rate=8000)
    assert sound.dtype == np.float32
    assert np.abs(sound).max() <= 1.0
    strongest = np.abs(np.fft.rfft(sound)).argmax() * 8000 / len(sound)
    assert strongest == pytest.approx(440.0, abs=1.0)
    assert len(sound) / 8000 == pytest.approx(16 / 4 * 60 / 90, abs=1.1)  # the last note rings on


def test_silence_lasts_as_long_as_its_steps():
    sound = synthesise(np.zeros((16, 176), np.uint8), MUSIC, rate=900)
    assert np.array_equal(sound, np.zeros(2400, np.float32))  # 4 beats at 90 a minute


def test_of_long_pieces_the_first_minute_is_heard_in_tensorboard():
    sounds = heard(np.zeros((5, 4000, 176), np.uint8), MUSIC)
    assert [len(sound) / AUDIO_RATE for sound in sounds] == [60.0] * 4


def test_the_command_writes_the_best_of_the_newest_sweep_and_names_it(results, capsys):
    assert main(["--best", "-n", "3", "--results", str(results)]) == 0
    assert sorted(contents(results / "newer" / "samples")) == ["000.mid", "001.mid", "002.mid", "samples.png"]
    out = capsys.readouterr().out
    assert re.search(r"^newer: dense, trial t0, epoch 1, val_elbo -?\d", out)
    assert "notes per step" in out
    assert "000.mid to 002.mid" in out


def test_the_latest_sweep_goes_before_newer_files(results, capsys):
    (results / "latest").symlink_to("older")
    assert main(["--results", str(results)]) == 0
    assert capsys.readouterr().out.startswith("older: ")
    array = np.load(results / "older" / "samples" / "samples.npy")
    assert array.shape == (16, 6)
    assert array.dtype == np.float32


def test_a_latest_sweep_without_a_best_gives_way_to_one_that_has_it(results, capsys):
    (results / "running").mkdir()
    (results / "latest").symlink_to("running")
    assert main(["--results", str(results)]) == 0
    assert capsys.readouterr().out.startswith("newer: ")


def test_a_sweep_or_a_checkpoint_can_be_chosen(results, trained, capsys, tmp_path):
    assert main(["--sweep", "older", "--results", str(results)]) == 0
    assert "array [16, 6] float32" in capsys.readouterr().out
    out = tmp_path / "elsewhere"
    assert main(["--checkpoint", str(trained["binary"]), "-n", "2", "--out", str(out)]) == 0
    assert np.load(out / "samples.npy").shape == (2, 8, 6)
    assert str(out) in capsys.readouterr().out


@pytest.mark.parametrize("kind", list(SPECS))
def test_the_same_seed_gives_the_same_bytes(trained, tmp_path, kind):
    chosen = ["--checkpoint", str(trained[kind]), "-n", "2", "--temperature", "0.9"]
    for folder, seed in (("one", "3"), ("two", "3"), ("other", "4")):
        assert main([*chosen, "--seed", seed, "--out", str(tmp_path / folder)]) == 0
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert contents(tmp_path / "one") != contents(tmp_path / "other")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--results", "nowhere"], "no sweep with a best checkpoint"),
        (["--sweep", "absent"], "absent"),
        (["--checkpoint", "nowhere"], "nowhere: no checkpoint here"),
        (["-n", "0"], "-n must be at least 1, but got 0"),
        (["--temperature", "0"], "--temperature must be a number above 0, but got 0.0"),
        (["--temperature", "nan"], "--temperature must be a number above 0, but got nan"),
        (["--seed", "-1"], "--seed must be at least 0, but got -1"),
        (["--out", "taken/samples"], "cannot be written"),
        (["--out", "taken"], "cannot be written"),
    ],
)
def test_a_mistake_is_told_in_one_line(results, monkeypatch, capsys, arguments, complaint):
    monkeypatch.chdir(results)
    Path("taken").write_text("a file, no folder")
    assert main(["--results", ".", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert complaint in captured.err


def test_a_truncated_checkpoint_is_told_in_one_line(results, capsys):
    model = results / "newer" / "best" / checkpoint.MODEL
    model.write_bytes(model.read_bytes()[:100])
    assert main(["--results", str(results)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_two_choices_of_a_checkpoint_are_refused(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["--best", "--sweep", "one"])
    assert "not allowed with" in capsys.readouterr().err


def test_the_module_is_a_command(tmp_path):
    run = subprocess.run(
        [sys.executable, "-m", "vae.sample", "--best", "--results", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parent.parent,
    )
    assert run.returncode == 2
    assert run.stderr.count("\n") == 1
    assert "python -m sweep.run" in run.stderr
