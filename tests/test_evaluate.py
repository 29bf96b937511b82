"""vae.evaluate: the command prints what a checkpoint is worth, and tells mistakes in one line."""

import json
import shutil

import pytest
from tiny import CPU, SMALL, make_corpus, make_music, make_trainer

from vae import checkpoint
from vae.bounds import TEST_SEED, evaluate, importance_weighted_bound, reconstruction
from vae.config import Config
from vae.corpus import save_corpus
from vae.distributions import compare
from vae.evaluate import PIECES, code_unit, main
from vae.pieces import draw
from vae.store import Store
from vae.trainer import Trainer, TrainingData

METRICS = {"elbo", "elbo_per_song", "log_likelihood", "kl", "code_gain", "active_units"}
ACCURACIES = {"accuracy_teacher_forced", "accuracy_sampled"}
ALWAYS = METRICS | {"checkpoint", "data", "split", "code_unit"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A checkpoint, and the data it was trained on under the name that the checkpoint has for them."""
    folder = tmp_path_factory.mktemp("trained")
    trainer = make_trainer()
    trainer.train_epoch()
    (folder / "run").mkdir()
    trainer.save(folder / "run", final=True)
    save_corpus(trainer.data.corpus, folder / "made")
    (folder / "made").rename(folder / "made.npz")
    return trainer, folder


def loaded(directory):
    return checkpoint.load(directory).model


def test_command_prints_the_bounds_of_a_split(trained, capsys):
    trainer, folder = trained
    arguments = ["--checkpoint", str(folder / "run"), "--data", str(folder / "made.npz")]
    assert main([*arguments, "--split", "test", "--iwae", "4"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert set(report) == ALWAYS | ACCURACIES | {"iwae", "iwae_samples"}
    model, songs = loaded(folder / "run"), trainer.data.songs["test"]
    expected = evaluate(model, songs, TEST_SEED) | reconstruction(model, songs, TEST_SEED)
    assert {name: report[name] for name in METRICS | ACCURACIES} == pytest.approx(expected, rel=1e-5)
    assert report["iwae"] == pytest.approx(importance_weighted_bound(model, songs, TEST_SEED, 4), rel=1e-5)
    assert (report["iwae_samples"], report["split"], report["code_unit"]) == (4, "test", "window of 8 steps")
    assert main(arguments) == 0
    report = json.loads(capsys.readouterr().out)
    assert set(report) == ALWAYS | ACCURACIES
    assert report["split"] == "valid"
    assert report["elbo"] == pytest.approx(trainer.best.metrics["val_elbo"], rel=1e-5)


def test_command_tells_mistakes_in_one_line(trained, capsys, tmp_path, monkeypatch):
    _, folder = trained
    monkeypatch.chdir(tmp_path)
    other = make_corpus("real")
    save_corpus(other, tmp_path / "real.npz")
    run, data = ["--checkpoint", str(folder / "run")], ["--data", str(folder / "made.npz")]
    cases = {
        (*run, *data, "--iwae", "0"): "error: --iwae must be at least 1, but got 0.",
        ("--checkpoint", "nothing"): "error: nothing: no checkpoint here (config.json is missing); pass a folder "
        "such as results/NAME/best.",
        tuple(
            run
        ): "error: made: the data that the checkpoint was trained on are not here; pass their place as --data.",
        (*run, "--data", "real.npz"): "error: real.npz: the model takes binary of 6 features, but this is real of 5; "
        "pass data like those that it was trained on.",
        ("--best",): "error: results: no sweep with a best checkpoint; run `python -m sweep.run` first, "
        "or pass --results.",
    }
    for arguments, message in cases.items():
        assert main(list(arguments)) == 2
        printed = capsys.readouterr()
        assert (printed.out, printed.err) == ("", message + "\n")


def test_data_that_a_sweep_keeps_are_found_here_and_in_an_object_store(trained, capsys, tmp_path, monkeypatch, bucket):
    trainer, folder = trained
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    shutil.copytree(folder / "run", tmp_path / "results" / "swept" / "best")
    shutil.copy(folder / "made.npz", tmp_path / "results" / "swept" / "data.npz")
    store = Store(bucket)
    for path in (tmp_path / "results").rglob("*.*"):
        store.write(path.relative_to(tmp_path / "results").as_posix(), path.read_bytes())
    for results in ("results", bucket):
        assert main(["--sweep", "swept", "--results", results]) == 0
        report = json.loads(capsys.readouterr().out)
        assert report["data"].endswith("swept/data.npz")
        assert report["elbo"] == pytest.approx(trainer.best.metrics["val_elbo"], rel=1e-5)


def test_command_notices_that_the_data_have_changed(trained, capsys, tmp_path, monkeypatch):
    _, folder = trained
    monkeypatch.chdir(tmp_path)
    record = json.loads((folder / "run" / "config.json").read_text())
    run = tmp_path / "run"
    run.mkdir()
    for name in ("model.safetensors", "metrics.json"):
        (run / name).write_bytes((folder / "run" / name).read_bytes())
    (run / "config.json").write_text(json.dumps(record | {"data": "made.npz"}))
    save_corpus(make_corpus(seed=1), tmp_path / "made.npz")
    assert main(["--checkpoint", "run"]) == 2
    expected = (
        "error: made.npz: no longer what the checkpoint was trained on, or read by other code; "
        "pass --data made.npz to take it anyway.\n"
    )
    assert capsys.readouterr().err == expected
    assert main(["--checkpoint", "run", "--data", "made.npz"]) == 0
    assert json.loads(capsys.readouterr().out)["data"] == "made.npz"


@pytest.mark.parametrize(
    ("family", "window", "unit"),
    [
        ("recurrent", 20, "song"),
        ("recurrent", 8, "window of 8 steps"),
        ("sequential", 20, "step"),
        ("dense", 20, "window of 20 steps"),
    ],
)
def test_the_unit_that_has_a_code_is_named(family, window, unit):
    assert code_unit(make_trainer("binary", family, window=window).model) == unit


def test_rows_of_numbers_are_not_reconstructed_exactly(tmp_path, capsys):
    trainer = make_trainer("real")
    trainer.train_epoch()
    trainer.save(tmp_path, final=True)
    save_corpus(trainer.data.corpus, tmp_path / "real.npz")
    assert main(["--checkpoint", str(tmp_path), "--data", str(tmp_path / "real.npz")]) == 0
    assert set(json.loads(capsys.readouterr().out)) == ALWAYS


def test_music_is_compared_with_samples(tmp_path, capsys):
    music = make_music()
    config = Config.for_data(music.spec, SMALL["sequential"] | {"window": 32})
    trainer = Trainer(config, TrainingData.load(music, CPU), epoch_steps=200)
    trainer.train_epoch()
    trainer.save(tmp_path, final=True)
    save_corpus(music, tmp_path / "rolls.npz")
    assert main(["--checkpoint", str(tmp_path), "--data", str(tmp_path / "rolls.npz")]) == 0
    report = json.loads(capsys.readouterr().out)
    assert set(report) == ALWAYS | ACCURACIES | {"music"}
    samples = draw(loaded(tmp_path), PIECES, 1.0, 0)
    assert report["music"] == json.loads(json.dumps(compare(samples, music)))
    assert report["music"]["excerpts"]["samples"] == PIECES
