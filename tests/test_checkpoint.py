"""vae.checkpoint: what a folder holds, that it is whole or refused, that a crash leaves the old one."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny import CASES, make_trainer, sample

from vae import checkpoint
from vae.bounds import VALIDATION_SEED, evaluate
from vae.checkpoint import FINAL_FILES, export, is_whole, load, replacing
from vae.errors import UserError


@pytest.fixture(scope="module")
def trainer():
    """Its best epoch is the first of two."""
    trainer = make_trainer(seed=3, ema=0.0)
    trainer.train_epoch()
    with torch.no_grad():
        for parameter in trainer.model.parameters():
            parameter.zero_()
    trainer.train_epoch()
    return trainer


@pytest.fixture
def saved(trainer, tmp_path):
    directory = tmp_path / "run"
    directory.mkdir()
    trainer.save(directory)
    return directory


def contents(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_loading_gives_the_best_epoch_to_the_bit(trainer, saved):
    loaded = load(saved)
    assert trainer.best.metrics["epoch"] == 1
    assert trainer.epoch == 2
    weights = loaded.model.state_dict()
    assert weights.keys() == trainer.best.weights.keys()
    assert all(torch.equal(weights[name], value) for name, value in trainer.best.weights.items())
    assert not torch.equal(weights["output.weight"], trainer.model.state_dict()["output.weight"])
    found = evaluate(loaded.model, trainer.data.songs["valid"], VALIDATION_SEED)
    assert found["elbo"] == loaded.record["metrics"]["val_elbo"] == trainer.best.metrics["val_elbo"]
    assert not loaded.model.training


@pytest.mark.parametrize(("kind", "family"), CASES)
def test_every_family_comes_back_as_it_was(kind, family, tmp_path):
    trainer = make_trainer(kind, family, learning_rate=1e-2, lr_warmup=5, ema=0.9, dropout=0.2)
    metrics = trainer.train_epoch()
    trainer.save(tmp_path)
    loaded = load(tmp_path)
    assert (loaded.config, loaded.spec) == (trainer.config, trainer.data.corpus.spec)
    found = evaluate(loaded.model, trainer.data.songs["valid"], VALIDATION_SEED)
    names = {name: f"val_{name}" for name in ("elbo", "elbo_per_song", "log_likelihood")}
    assert found == {name: metrics[names.get(name, name)] for name in found}  # those of the averaged weights
    with trainer._optimizer.averaged():
        trainer.model.eval()
        pieces = [sample(model, 3, 5, 1.0, torch.Generator().manual_seed(0)) for model in (loaded.model, trainer.model)]
    assert torch.equal(*pieces)


def test_a_record_says_what_was_trained_on_what(trainer, saved):
    loaded, corpus = load(saved), trainer.data.corpus
    assert (loaded.config, loaded.spec) == (trainer.config, corpus.spec)
    record = loaded.record
    assert record["fingerprint"] == corpus.fingerprint
    assert (record["data"], record["seed"], record["epoch_steps"]) == ("made", 3, 300)
    assert record["split"]["train"] == {"songs": 40, "steps": len(corpus.splits["train"].values)}
    assert record["versions"].keys() == {"music-vae-sweep", "python", "torch", "numpy"}
    assert record["versions"]["torch"] == torch.__version__
    assert record["metrics"]["provenance"] == {"seed": 3, "epoch": 1, "fingerprint": corpus.fingerprint}


def test_a_final_checkpoint_lacks_what_only_training_needs(trainer, saved, tmp_path):
    assert set(contents(saved)) == {*FINAL_FILES, checkpoint.TRAINING, checkpoint.COUNTERS}
    final = tmp_path / "final"
    final.mkdir()
    trainer.save(final, final=True)
    assert set(contents(final)) == set(FINAL_FILES)
    assert all(contents(final)[name] == contents(saved)[name] for name in FINAL_FILES)


def test_saving_twice_writes_the_same_bytes(trainer, saved, tmp_path):
    again = tmp_path / "again"
    again.mkdir()
    trainer.save(again)
    assert contents(again) == contents(saved)


def test_export_copies_the_model_and_adds_to_its_provenance(saved, tmp_path):
    best = tmp_path / "sweep" / "best"
    for trial in (7, 8):  # the second replaces the first
        export(saved, best, {"trial": trial})
        assert set(contents(best)) == set(FINAL_FILES)
        metrics = json.loads((best / checkpoint.METRICS).read_text())
        assert (metrics["provenance"]["trial"], metrics["provenance"]["seed"]) == (trial, 3)
        assert metrics | {"provenance": None} == load(saved).record["metrics"] | {"provenance": None}
        assert torch.equal(load_file(best / checkpoint.MODEL)["output.bias"], load(saved).model.output.bias)
    assert [path.name for path in best.parent.iterdir()] == ["best"]


@pytest.mark.parametrize("name", [checkpoint.MODEL, checkpoint.CONFIG])
def test_an_export_tells_its_own_files_from_others(saved, tmp_path, name):
    best = tmp_path / "best"
    export(saved, best, {"trial": 7})
    assert is_whole(best)
    (best / name).write_bytes((best / name).read_bytes() + b" ")
    assert not is_whole(best)
    metrics = json.loads((best / checkpoint.METRICS).read_text())
    del metrics["provenance"]["sha256"]  # as those of former versions
    checkpoint.write_json(best / checkpoint.METRICS, metrics)
    assert is_whole(best)


def test_an_export_of_half_a_checkpoint_leaves_the_old_one(saved, tmp_path):
    best = tmp_path / "sweep" / "best"
    export(saved, best, {"trial": 7})
    before = contents(best)
    (saved / checkpoint.MODEL).unlink()
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors"):
        export(saved, best, {"trial": 8})
    assert contents(best) == before
    assert [path.name for path in best.parent.iterdir()] == ["best"]


def test_an_interrupted_replacement_leaves_the_old_folder(tmp_path):
    target = tmp_path / "run"
    target.mkdir()
    (target / "a").write_text("old")

    def interrupted():
        with replacing(target) as scratch:
            (scratch / "a").write_text("half")
            raise KeyboardInterrupt("now")

    with pytest.raises(KeyboardInterrupt, match="now"):
        interrupted()
    assert contents(target) == {"a": b"old"}
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_folder_that_can_not_take_the_place_of_another_leaves_it_there(tmp_path):
    target = tmp_path / "run"
    target.mkdir()
    (target / "a").write_text("old")
    with pytest.raises(FileNotFoundError, match="run"), replacing(target) as scratch:
        scratch.rmdir()  # as a file system of the network may lose it
    assert contents(target) == {"a": b"old"}
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_replacement_takes_the_place_of_all_files_and_clears_what_a_crash_left(tmp_path):
    target, left = tmp_path / "deep" / "run", tmp_path / "deep" / ".run.old"
    for name in (checkpoint.TRAINING, checkpoint.MODEL):
        with replacing(target) as scratch:
            (scratch / name).write_text(name)
        assert contents(target) == {name: name.encode()}
        assert list(target.parent.iterdir()) == [target]
        left.mkdir()
        (left / "remains").write_text("of a crash")
    assert target.stat().st_mode & 0o777 == 0o755


def test_a_replacement_leaves_what_is_no_checkpoints(tmp_path):
    for text in ("one", "two"):
        with replacing(tmp_path / "run") as scratch:
            (scratch / checkpoint.MODEL).write_text(text)
        (tmp_path / "run" / "samples").mkdir(exist_ok=True)
        (tmp_path / "run" / "samples" / text).write_text("played")
    assert (tmp_path / "run" / checkpoint.MODEL).read_text() == "two"
    assert sorted(contents(tmp_path / "run" / "samples")) == ["one", "two"]


@pytest.mark.parametrize("name", [checkpoint.MODEL, checkpoint.CONFIG, checkpoint.METRICS])
def test_an_absent_file_is_named(saved, name):
    (saved / name).unlink()
    with pytest.raises(UserError, match=rf"^{saved}: no checkpoint here \({name} is missing\)\.$"):
        load(saved)


@pytest.mark.parametrize("name", [checkpoint.MODEL, checkpoint.CONFIG, checkpoint.METRICS])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.9])
def test_a_truncated_file_is_refused_in_one_line(saved, name, share):
    data = (saved / name).read_bytes()
    (saved / name).write_bytes(data[: int(share * len(data))])
    with pytest.raises(
        UserError, match=rf"^{saved / name}: unreadable \([^\n]*\); the checkpoint is broken, use another\.$"
    ):
        load(saved)


def test_a_file_is_no_checkpoint(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"unreadable \(.*Not a directory.*\); the checkpoint is broken, use another"):
        load(tmp_path / "file")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"config": {"tempo": 3}}, r"not a config of this version \(.*unexpected keyword argument 'tempo'\)"),
        ({"config": {"latent_dim": 0}}, r"not a config of this version \(latent_dim must lie in "),
        ({"spec": {}}, r"not a config of this version \(.*missing "),
        ({"config": {"latent_dim": 9}}, r"weights do not fit the config: .*size mismatch"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(saved, change, message):
    record = json.loads((saved / checkpoint.CONFIG).read_text())
    for key, value in change.items():
        record[key] = (record[key] | value) if value else {}
    (saved / checkpoint.CONFIG).write_text(json.dumps(record))
    with pytest.raises(UserError, match=message) as raised:
        load(saved)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("text", ["[]", "null", "3", "{}"])
def test_json_that_is_no_record_is_refused(saved, text):
    (saved / checkpoint.CONFIG).write_text(text)
    with pytest.raises(UserError, match=r"config\.json: not a config of this version"):
        load(saved)


def test_weights_that_are_not_safetensors_are_never_unpickled(saved):
    torch.save({"a": torch.ones(1)}, saved / checkpoint.MODEL)
    with pytest.raises(UserError, match=r"model\.safetensors: unreadable"):
        load(saved)


def test_metrics_are_read_back_exactly(trainer, saved):
    metrics = load(saved).record["metrics"]
    assert {name: metrics[name] for name in trainer.best.metrics} == trainer.best.metrics
    assert np.isfinite([trainer.best.metrics[name] for name in ("val_elbo", "kl", "code_gain")]).all()
