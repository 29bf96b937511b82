"""vae.sample: the best of the newest sweep played, songs that steer pieces, errors in one line."""

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pretty_midi
import pytest
import torch
from tiny import SMALL

from vae import checkpoint
from vae.config import Config
from vae.corpus import Corpus, Split, fingerprint, save_corpus
from vae.encoding import PITCHES, DataSpec
from vae.midi import read_midi, write_midi
from vae.sample import main
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
    splits = dict.fromkeys(("train", "valid", "test"), split)
    return Corpus(name, spec, splits, (), fingerprint(spec, splits))


def train(corpus, directory, **params):
    """A checkpoint of a tiny model, trained for an epoch."""
    data = TrainingData.load(corpus, torch.device("cpu"))
    trainer = Trainer(Config.for_data(corpus.spec, params), data, seed=0, epoch_steps=200)
    trainer.train_epoch()
    trainer.save(directory, final=True)
    return directory


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Checkpoints of tiny models by kind of data."""
    sizes = {"family": "dense", "latent_dim": 4, "dense_width": 8, "dropout": 0.5}
    return {
        name: train(made_corpus(name, spec), tmp_path_factory.mktemp(name), **sizes) for name, spec in SPECS.items()
    }


@pytest.fixture
def results(trained, tmp_path):
    """A folder of results with two sweeps; `older` finished first."""
    for age, (name, kind) in enumerate({"newer": "music", "older": "real"}.items()):
        checkpoint.export(trained[kind], tmp_path / name / "best", {"trial": f"t{age}"})
        os.utime(tmp_path / name / "best" / checkpoint.METRICS, (1e9 - age, 1e9 - age))
    return tmp_path


def contents(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_the_command_writes_the_best_of_the_newest_sweep_and_names_it(results, capsys):
    assert main(["--best", "-n", "3", "--results", str(results)]) == 0
    assert sorted(contents(results / "newer" / "samples")) == ["000.mid", "001.mid", "002.mid", "samples.png"]
    out = capsys.readouterr().out
    assert re.search(r"^newer: dense, trial t0, epoch 1, val_elbo -?\d", out)
    assert "notes per step" in out
    assert "000.mid to 002.mid" in out


def test_all_that_is_written_is_named(results, capsys):
    for pieces, told in (("2", "000.mid to 001.mid, 000.wav to 001.wav"), ("1", "000.mid, 000.wav")):
        assert main(["--results", str(results), "-n", pieces, "--wav"]) == 0
        out = capsys.readouterr().out
        assert f"samples: {told}, samples.png\n" in out
        assert f"\n{pieces} piece{'s' if pieces == '2' else ''} of 16 steps: " in out
    assert sorted(contents(results / "newer" / "samples")) == ["000.mid", "000.wav", "samples.png"]


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


def test_samples_of_very_large_numbers_have_a_spread(tmp_path, capsys):
    spec = replace(REAL, unit_interval=False)
    rows = Split(np.float32(1e20) * np.random.default_rng(0).standard_normal((40, 6), np.float32), np.full(40, 1))
    splits = dict.fromkeys(("train", "valid", "test"), rows)
    corpus = Corpus("large", spec, splits, (), fingerprint(spec, splits))
    train(corpus, tmp_path, family="dense", latent_dim=4, dense_width=8)
    assert main(["--checkpoint", str(tmp_path), "--out", str(tmp_path / "out")]) == 0
    array = np.load(tmp_path / "out" / "samples.npy")
    assert f"std {array.astype(float).std():.3f}\n" in capsys.readouterr().out


@pytest.mark.parametrize("kind", list(SPECS))
def test_the_same_seed_gives_the_same_bytes(trained, tmp_path, kind):
    chosen = ["--checkpoint", str(trained[kind]), "-n", "2", "--temperature", "0.9"]
    for folder, seed in (("one", "3"), ("two", "3"), ("other", "4")):
        assert main([*chosen, "--seed", seed, "--out", str(tmp_path / folder)]) == 0
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert contents(tmp_path / "one") != contents(tmp_path / "other")


@pytest.fixture
def tune(tmp_path):
    """A MIDI file of five notes, eleven steps of a quarter of a beat."""
    notes = np.array([[60, 0, 2], [64, 2, 4], [67, 4, 6], [60, 6, 8], [72, 8, 11]])
    write_midi(notes, tmp_path / "tune.mid", 120.0, 4, "tune")
    return tmp_path / "tune.mid"


@pytest.mark.parametrize(
    ("steer", "folder", "pieces"),
    [
        (["--reconstruct", "tune.mid"], "reconstruction", 15),
        (["--vary", "tune.mid", "--amount", "0.3", "-n", "2"], "variations", 2),
        (["--interpolate", "tune.mid", "tune.mid"], "interpolation", 14),
    ],
)
def test_a_file_of_music_steers_pieces_and_stands_beside_them(
    results, tune, capsys, monkeypatch, steer, folder, pieces
):
    monkeypatch.chdir(tune.parent)
    assert main([*steer, "--results", str(results)]) == 0
    written = contents(results / "newer" / folder)
    songs = 2 if folder == "interpolation" else 1
    assert sorted(written) == [*(f"{i:03d}.mid" for i in range(pieces + songs)), "samples.png"]
    (song,) = read_midi(results / "newer" / folder / "000.mid", 4)
    assert [note[:2] for note in song.notes.tolist()] == [[60, 0], [64, 2], [67, 4], [60, 6], [72, 8]]
    out = capsys.readouterr().out
    assert f"{pieces} pieces of 11 steps" in out
    assert "000: tune as the model reads it\n" in out
    assert pretty_midi.PrettyMIDI(str(results / "newer" / folder / "001.mid")).get_tempo_changes()[1][0] == 120


@pytest.mark.parametrize(("gain", "told"), [(0.001, True), (0.06, False)])
def test_a_code_that_says_next_to_nothing_is_told_where_songs_steer(results, tune, capsys, gain, told):
    """Also of a sweep without a floor; pieces that nothing steers need no code."""
    best = results / "newer" / "best"
    for name, values in ((checkpoint.CONFIG, {"min_kl": 0.0}), (checkpoint.METRICS, {"kl": 0.002, "code_gain": gain})):
        checkpoint.write_json(best / name, checkpoint.read_json(best / name) | values)
    line = f"its code says next to nothing (kl 0.002, code_gain {gain:.3f}): pieces go their own way\n"
    chosen = ["--sweep", "newer", "--results", str(results), "-n", "1"]
    assert main([*chosen, "--vary", str(tune)]) == 0
    assert (line in capsys.readouterr().out) == told
    assert main(chosen) == 0
    assert "its code says" not in capsys.readouterr().out


def test_codes_of_single_steps_are_told_where_songs_steer(tune, capsys):
    (tune.parent / "steps").mkdir()
    directory = train(made_corpus("music", MUSIC), tune.parent / "steps", **SMALL["sequential"])
    line = "codes of single steps (sequential) say nothing lasting: pieces go their own way\n"
    chosen = ["--checkpoint", str(directory), "-n", "1"]
    assert main([*chosen, "--vary", str(tune)]) == 0
    assert line in capsys.readouterr().out
    assert main(chosen) == 0
    assert "codes of single steps" not in capsys.readouterr().out


def test_pieces_keep_the_metre_of_a_song_that_states_one(results, tune, capsys):
    notes = np.array([[60, 0, 12], [64, 12, 24]])
    write_midi(notes, tune.parent / "jig.mid", 150.0, 4, "jig", steps_per_bar=12, beat_type=8)
    out = tune.parent / "out"
    assert main(["--results", str(results), "--reconstruct", str(tune.parent / "jig.mid"), "--out", str(out)]) == 0
    told = "000: jig as the model reads it, in a metre that the model was not trained on\n"
    assert told in capsys.readouterr().out
    for name in ("000.mid", "001.mid"):
        (metre,) = pretty_midi.PrettyMIDI(str(out / name)).time_signature_changes
        assert (metre.numerator, metre.denominator) == (6, 8)


def test_pieces_are_in_the_tempo_of_the_first_song_and_songs_of_the_data_in_that_of_the_data(trained, tune, tmp_path):
    data, out = tmp_path / "made.npz", tmp_path / "out"
    save_corpus(made_corpus("made", MUSIC), data)
    chosen = ["--checkpoint", str(trained["music"]), "--data", str(data), "-n", "1", "--out", str(out)]
    for songs, tempo in (((str(tune), "test:0"), 120), (("test:0", str(tune)), 90)):
        assert main([*chosen, "--interpolate", *songs]) == 0
        for name in ("000.mid", "001.mid", "002.mid"):
            assert pretty_midi.PrettyMIDI(str(out / name)).get_tempo_changes()[1][0] == pytest.approx(
                tempo, rel=1e-5
            )  # whole microseconds


def test_names_that_are_not_utf8_are_printed_and_drawn(trained, tune, capsys, monkeypatch):
    monkeypatch.chdir(tune.parent)
    song, folder = (os.fsdecode(name) for name in (b"caf\xe9.mid", b"pi\xe8ces"))
    tune.rename(song)
    assert main(["--checkpoint", str(trained["music"]), "--vary", song, "-n", "1", "--out", folder]) == 0
    out = capsys.readouterr().out
    assert "000: caf? as the model reads it\n" in out
    assert "pi?ces: 000.mid to 001.mid, samples.png\n" in out
    assert sorted(contents(Path(folder))) == ["000.mid", "001.mid", "samples.png"]


def test_a_song_of_the_data_steers_pieces(trained, tmp_path, capsys):
    data = tmp_path / "made.npz"
    save_corpus(made_corpus("made", BINARY), data)
    chosen = ["--checkpoint", str(trained["binary"]), "--data", str(data), "-n", "2", "--out", str(tmp_path / "out")]
    assert main([*chosen, "--interpolate", "valid:3", "test:39"]) == 0
    array = np.load(tmp_path / "out" / "samples.npy")
    songs = made_corpus("made", BINARY).splits["test"].values.reshape(40, 8, 6)
    assert np.array_equal(array[[0, -1]], songs[[3, 39]])
    assert array.shape == (4, 8, 6)
    out = capsys.readouterr().out
    assert "000: valid:3 as the model reads it\n003: test:39 as the model reads it\n" in out
    assert main([*chosen, "--vary", "test:40"]) == 2
    assert capsys.readouterr().err == "error: test:40: test has the songs 0 to 39.\n"
    assert main([*chosen, "--vary", str(data)]) == 2
    assert "--data says whose songs test:0 and the like are" in capsys.readouterr().err


def test_of_a_book_a_tune_is_taken_by_its_number_and_the_longer_song_is_cut(results, monkeypatch, capsys):
    monkeypatch.chdir(results)
    tunes = ("X:1\nT:one\nM:4/4\nL:1/4\nK:C\nC D E F|\n", "X:2\nT:two\nM:4/4\nL:1/4\nK:C\nC D E F|G A B c|\n")
    Path("book.abc").write_text("\n".join(tunes))
    assert main(["--results", ".", "--vary", "book.abc"]) == 2
    assert "book.abc: holds 2 songs; pass one of book.abc:0 to book.abc:1." in capsys.readouterr().err
    assert main(["--results", ".", "--vary", "book.abc:2"]) == 2
    assert "book.abc:2: it holds 2 songs, the first is book.abc:0." in capsys.readouterr().err
    assert main(["--results", ".", "--interpolate", "book.abc:0", "book.abc:1", "-n", "3"]) == 0
    out = capsys.readouterr().out
    assert "000: book 1 as the model reads it\n004: book 2 as the model reads it, its first 16 of 32 steps\n" in out
    assert "3 pieces of 16 steps" in out


def test_a_song_is_never_written_over(results, tune, monkeypatch, capsys):
    monkeypatch.chdir(tune.parent)
    assert main(["--results", str(results), "--vary", "tune.mid", "--out", ".", "-n", "2"]) == 2
    assert "tune.mid: lies where the pieces go and may be replaced; pass another --out." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--vary", "absent.mid"], "absent.mid: no such file or folder. Pass a file of music"),
        (["--vary", ""], ".: no file of music"),
        (["--vary", "~nobody1/x.mid"], "~nobody1/x.mid: cannot be opened"),
        (["--vary", "x" * 300 + ".mid"], "cannot be opened: File name too long"),
        (["--reconstruct", "taken"], "taken: no file of music (.mid"),
        (["--reconstruct", "broken.mid"], "broken.mid: cannot be read: broken.mid (broken MIDI"),
        (["--data", "nowhere"], "--data says whose songs test:0"),
        (["--reconstruct", "test:0"], "music: the data that the checkpoint was trained on are not here; pass"),
        (["--vary", "test:0", "--amount", "1.5"], "--amount must lie in 0..1, but got 1.5"),
        (["--sweep", "older", "--wav"], "--wav: the model was trained on arrays"),
        (["--amount", "0.5"], "--amount says how far --vary goes"),
        (["--results", "nowhere"], "no sweep with a best checkpoint"),
        (["--sweep", "absent"], "absent"),
        (["--checkpoint", "nowhere"], "nowhere: no checkpoint here (config.json is missing); pass a folder such as"),
        (["--checkpoint", "newer"], "newer: no checkpoint here (config.json is missing); pass newer/best."),
        (["--checkpoint", "newer/best/config.json"], "newer/best/config.json: is a file; pass newer/best."),
        (["--checkpoint", "taken"], "taken: is a file; pass a folder such as results/NAME/best."),
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
    Path("broken.mid").write_bytes(b"MThd no more")
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
