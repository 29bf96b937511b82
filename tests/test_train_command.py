"""vae.train: the command."""

import dataclasses
import json
import shutil

import pytest
from tiny import CPU, make_corpus, make_wide_rows
from training import assert_same, state

from vae import checkpoint
from vae.config import Config
from vae.corpus import save_corpus
from vae.encoding import PITCHES
from vae.sample import main as play
from vae.train import main
from vae.trainer import Trainer, TrainingData

WILD = {"learning_rate": 10.0, "lr_warmup": 0, "grad_clip": 1e9}


@pytest.fixture
def data(tmp_path):
    save_corpus(make_corpus(), tmp_path / "made.npz")
    return tmp_path / "made.npz"


def arguments(data, *more):
    return [
        "--data",
        str(data),
        "--epoch-steps",
        "300",
        "--set",
        "dense_width=8",
        "--out",
        str(data.parent / "run"),
        *more,
    ]


def test_command_trains_what_the_trainer_trains(data, capsys):
    assert main(arguments(data, "--max-epochs", "2", "--seed", "5")) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[:2] == ["made", "training dense on this machine (cpu)"]
    assert [line.split()[:2] for line in printed[2:4]] == [["epoch", "1"], ["epoch", "2"]]
    corpus = make_corpus()
    config = Config.for_data(corpus.spec, {"dense_width": 8}, horizon=2 * 300)  # the learning rate falls over both
    trainer = Trainer(config, TrainingData.load(corpus, CPU), seed=5, epoch_steps=300)
    trainer.train_epoch()
    trainer.train_epoch()
    again = make_corpus()
    restored = Trainer(config, TrainingData.load(again, CPU), seed=5, epoch_steps=300)
    restored.restore(data.parent / "run")
    assert_same(state(restored), state(trainer))
    assert sorted(path.name for path in data.parent.iterdir()) == ["made.npz", "run"]


def test_command_takes_the_family_and_settings(data, capsys):
    assert (
        main(arguments(data, "--family", "recurrent", "--set", "rnn_width=5", "--set", "window=4", "--max-epochs", "1"))
        == 0
    )
    assert "training recurrent on this machine" in capsys.readouterr().out
    config = checkpoint.load(data.parent / "run").config
    assert (config.family, config.rnn_width, config.window) == ("recurrent", 5, 4)


def test_command_says_which_settings_the_family_does_not_use(data, capsys):
    words = arguments(data, "--set", "latent_dim=3", "--max-epochs", "1", "--family", "hierarchical", "--set", "crop=9")
    assert main(words) == 0
    assert capsys.readouterr().out.splitlines()[1:4] == [
        "--set dense_width changes nothing: it is of dense, not of hierarchical",
        "--set crop changes nothing: it is of sequential, not of hierarchical",
        "training hierarchical on this machine (cpu)",
    ]


def test_command_gives_wide_rows_shorter_epochs_unless_told(tmp_path):
    save_corpus(make_wide_rows(400 * PITCHES), tmp_path / "wide.npz")
    words = ["--data", str(tmp_path / "wide.npz"), "--set", "dense_width=2", "--max-epochs", "2"]
    for steps, asked in ((250, ()), (60, ("--epoch-steps", "60"))):
        out = tmp_path / str(steps)
        assert main([*words, *asked, "--out", str(out)]) == 0
        record = json.loads((out / "config.json").read_text())
        assert record["epoch_steps"] == steps
        config = Config.for_data(make_wide_rows(400 * PITCHES).spec, {"dense_width": 2}, horizon=2 * steps)
        assert record["config"] == dataclasses.asdict(config)


def test_command_names_all_hyperparameters(data, capsys):
    assert main(arguments(data, "--set", "help")) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("=")[0] for line in lines[:-1]] == [field.name for field in dataclasses.fields(Config)]
    assert "latent_dim=100  (1..4096)  dimensions of the code" in lines
    assert not (data.parent / "run").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--max-epochs", "0"], "--max-epochs must be at least 1, but got 0."),
        (["--epoch-steps", "-1"], "--epoch-steps must be at least 1, but got -1."),
        (["--seed", "-1"], "--seed must lie in 0..4294967295, but got -1."),
        (["--set", "latent"], "--set takes NAME=VALUE, but got 'latent'."),
        (["--set", "laten_dim=3"], "unknown hyperparameter 'laten_dim'; did you mean latent_dim?"),
        (["--set", "batch_size=64"], "unknown hyperparameter 'batch_size'; did you mean batch_steps?"),
        (
            ["--set", "batch_steps=0"],
            "batch_steps must lie in 1..1e+07 (time steps in a batch, about; one window at least), but got 0.",
        ),
        (["--set", "window=99"], "window must not be longer than the longest song (20 steps), but got 99."),
        (
            ["--data", "nowhere"],
            "nowhere: no such file or folder. Pass bach, a folder of music, or a .json, .npy or .npz file.",
        ),
    ],
)
def test_command_tells_mistakes_in_one_line(data, more, message, capsys):
    assert main(arguments(data, *more)) == 2
    assert capsys.readouterr().err == f"error: {message}\n"
    assert not (data.parent / "run").exists()


def test_command_tells_a_divergence_and_leaves_the_checkpoint_that_was_there(data, capsys):
    def files():
        return {path.name: path.read_bytes() for path in out.iterdir()} if out.exists() else None

    save_corpus(make_corpus("real"), data)
    out = data.parent / "run"
    params = {**WILD, "dense_depth": 16, "dense_width": 32, "latent_dim": 4, "batch_steps": 50}
    wild = arguments(data, *(word for item in params.items() for word in ("--set", "{}={}".format(*item))))
    for _ in range(2):
        before = files()
        assert main(wild) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: diverged in epoch 1: ")
        assert error.endswith("; lower learning_rate or grad_clip.\n")
        assert error.count("\n") == 1
        assert files() == before
        assert main(arguments(data, "--max-epochs", "1")) == 0  # which the next time is there
        checkpoint.load(out)


def test_command_never_replaces_what_is_no_checkpoint(data, capsys):
    out = data.parent / "run"
    out.mkdir()
    (out / "song.mid").write_bytes(b"precious")
    expected = f"error: {out}: holds something else than a checkpoint, which would be lost; pass another --out.\n"
    assert main(arguments(data, "--max-epochs", "1")) == 2
    assert capsys.readouterr().err == expected
    assert (out / "song.mid").read_bytes() == b"precious"
    shutil.rmtree(out)
    out.mkdir()
    assert main(arguments(data, "--max-epochs", "1")) == 0
    assert main(arguments(data, "--max-epochs", "1")) == 0  # over a checkpoint
    checkpoint.load(out)


def test_command_says_what_it_replaces_and_refuses_where_that_is_longer(data, capsys):
    out = data.parent / "run"
    assert main(arguments(data, "--max-epochs", "2")) == 0
    best = json.loads((out / "metrics.json").read_text())["val_elbo"]
    was = (out / "model.safetensors").read_bytes()
    assert main(arguments(data, "--max-epochs", "1")) == 2
    holds = f"{out}: holds a training of 2 epochs (dense, val_elbo {best:.3f})"
    assert capsys.readouterr().err == f"error: {holds}, more than --max-epochs 1; pass another --out.\n"
    assert (out / "model.safetensors").read_bytes() == was
    assert main(arguments(data, "--max-epochs", "2", "--seed", "1")) == 0
    assert capsys.readouterr().out.splitlines()[0] == f"{holds}, which is replaced once an epoch is trained"
    assert (out / "model.safetensors").read_bytes() != was


def test_pieces_of_a_model_that_is_replaced_do_not_pass_for_the_new_ones(data, capsys):
    out = data.parent / "run"
    for _ in range(3):
        assert main(arguments(data, "--max-epochs", "1")) == 0
        assert play(["--checkpoint", str(out), "-n", "2"]) == 0
        (out / "mine.txt").write_text("kept")
    assert f"{out / 'samples'}: of the earlier model, now samples-2\n" in capsys.readouterr().out
    folders = sorted(path.name for path in out.iterdir() if path.is_dir())
    assert folders == ["samples", "samples-1", "samples-2"]
    assert (out / "samples-1" / "samples.npy").exists()
    assert (out / "mine.txt").exists()


def test_command_replaces_no_config_of_something_else(data, capsys):
    out = data.parent / "run"
    out.mkdir()
    (out / "config.json").write_text("{}")
    assert main(arguments(data, "--max-epochs", "1")) == 2
    assert "holds something else than a checkpoint" in capsys.readouterr().err
    assert (out / "config.json").read_text() == "{}"


def test_command_says_where_it_cannot_write(data, capsys):
    (data.parent / "file").write_text("")
    assert main([*arguments(data, "--max-epochs", "1"), "--out", str(data.parent / "file" / "run")]) == 2
    assert f"{data.parent / 'file' / 'run'}: cannot be written" in capsys.readouterr().err
