"""Which checkpoint a command's arguments choose, here and in an object store, and where what it writes lies."""

import threading
from pathlib import Path

import pytest
import torch
from tiny import make_trainer

from sweep.results import chosen
from vae import arguments, sample
from vae.arguments import Parser, add_checkpoint_arguments, chosen_directory, local_results
from vae.checkpoint import CONFIG, FINAL_FILES, METRICS, MODEL, export, load
from vae.errors import UserError
from vae.store import Store, point_elsewhere


@pytest.fixture(scope="module")
def winners(tmp_path_factory):
    """The files of two winners of a sweep, the earlier first, of equal shapes."""
    files = []
    for trial in range(2):
        place, trainer = tmp_path_factory.mktemp("winner"), make_trainer(seed=trial)
        trainer.train_epoch()
        trainer.save(place, final=True)
        export(place, place / "best", {"trial": trial})
        files.append({name: (place / "best" / name).read_bytes() for name in FINAL_FILES})
    return files


@pytest.fixture
def kept(bucket, winners, tmp_path, monkeypatch):
    """Where a cluster keeps the sweep `far`, which this machine has heard of."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("SWEEP_RESULTS", raising=False)
    monkeypatch.chdir(tmp_path)
    store = Store(f"{bucket}/kept")
    _upload(store, winners[0], *FINAL_FILES)
    store.write("latest", b"far")
    point_elsewhere(Path("results"), store.place, "far")
    return store


def _upload(store, winner, *names):
    for name in names:
        store.write(f"far/best/{name}", winner[name])


def _parsed(*words):
    parser = Parser("test")
    add_checkpoint_arguments(parser)
    return parser.parse_args(words)


def test_a_clusters_sweep_that_was_played_here_is_still_there(kept):
    assert sample.main(["-n", "2"]) == 0
    assert Path("results/far/samples/samples.npy").exists()
    assert sample.main(["--sweep", "far", "-n", "2"]) == 0
    assert chosen("results", "far").place == kept.place


@pytest.mark.parametrize("name", ["far", "far/", "latest", "latest/"])
def test_a_sweep_is_known_by_its_name_as_a_shell_completes_it_and_the_newest_by_latest(kept, name):
    for results in ("results", kept.place):
        assert chosen_directory(_parsed("--sweep", name, "--results", results)).parent.name == "far"


def test_what_is_played_from_an_object_store_lies_where_commands_look_for_sweeps(kept, monkeypatch):
    monkeypatch.setenv("SWEEP_RESULTS", "sweeps")
    assert sample.main(["-n", "2", "--results", kept.place]) == 0
    assert Path("sweeps/far/samples/samples.npy").exists()


@pytest.mark.parametrize(
    ("set_to", "looked_for", "here"),
    [
        (None, "results", "results"),
        ("", "results", "results"),
        ("a/b", "a/b", "a/b"),
        ("s3://b/x", "s3://b/x", "results"),
    ],
)
def test_sweeps_are_where_the_environment_says_unless_that_is_empty(monkeypatch, set_to, looked_for, here):
    monkeypatch.delenv("SWEEP_RESULTS", raising=False)
    if set_to is not None:
        monkeypatch.setenv("SWEEP_RESULTS", set_to)
    assert _parsed().results == looked_for
    assert local_results() == Path(here)


def test_a_winner_that_is_being_replaced_is_waited_for(kept, winners, monkeypatch):
    monkeypatch.setattr(arguments, "_PAUSE_SECONDS", 0.1)
    _upload(kept, winners[1], CONFIG, MODEL)
    rest = threading.Timer(1.0, _upload, (kept, winners[1], METRICS))
    rest.start()
    loaded = load(chosen_directory(_parsed()))
    rest.join()
    expected = make_trainer(seed=1)
    expected.train_epoch()
    assert loaded.record["metrics"]["provenance"]["trial"] == 1
    assert all(torch.equal(value, expected.best.weights[name]) for name, value in loaded.model.state_dict().items())


def test_a_winner_that_came_in_part_and_no_more_is_told(kept, winners, monkeypatch):
    monkeypatch.setattr(arguments, "_REPLACED_SECONDS", 0.0)
    monkeypatch.setattr(arguments, "_PAUSE_SECONDS", 0.1)
    _upload(kept, winners[1], CONFIG, MODEL)
    with pytest.raises(UserError, match=r"kept/far/best: a new winner has come in part; try again, or"):
        chosen_directory(_parsed())
