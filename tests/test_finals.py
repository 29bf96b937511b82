"""Final runs, end to end: the real command, real Ray, small real training."""

import os
import re
import signal

import pytest
from sweeping import run, start, wait_for
from tiny import CPU
from training import assert_same

from sweep.checkpoints import trained_epochs
from sweep.results import SweepFolder
from sweep.rungs import rungs, validates
from sweep.seeds import median
from sweep.status import main as status
from sweep.versions import revision
from vae import checkpoint
from vae.config import Config
from vae.corpus import load_corpus
from vae.trainer import MIN_KL, Trainer, TrainingData

pytestmark = pytest.mark.xdist_group("ray")  # a core for all that starts Ray, the other for the rest

EPOCHS, EPOCH_STEPS = 30, 1000


def trained(folder):
    """Final runs at their end, by the names of their folders."""
    found = (folder.path / "finals").glob("session-*/*/checkpoint_*")
    return {path.parent.name for path in found if trained_epochs(str(path)) == EPOCHS}


def straight(chords, params, seed):
    """The weights of the best epoch of a run in this process that nothing interrupts."""
    corpus = load_corpus(str(chords))
    trainer = Trainer(Config.for_data(corpus.spec, params), TrainingData.load(corpus, CPU), seed, EPOCH_STEPS)
    for epoch in range(1, EPOCHS + 1):
        trainer.train_epoch(validate=validates(epoch, rungs(EPOCHS)))
    return trainer.best.weights


def test_final_runs_killed_and_resumed_are_as_if_run_through_and_finished_ones_are_not_repeated(
    chords, tmp_path, capsys
):
    folder = SweepFolder(tmp_path, "finals")
    process = start(
        *("--data", chords, "--results", tmp_path, "--name", "finals", "--trials", 2, "--max-epochs", 2),
        *("--epoch-steps", EPOCH_STEPS, "--family", "dense", "--final-epochs", EPOCHS, "--max-concurrent", 1),
        final_seeds=None,
    )
    wait_for(lambda: trained(folder), process, pause=0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    before = trained(folder)
    assert status(["finals", "--results", str(tmp_path)]) == 0
    assert re.search(rf"\nfinal runs: \d/6 trained, epoch \d+/{EPOCHS}\n", capsys.readouterr().out)
    assert folder.read_summary()["best"]["seeds"] is None  # the search's winner, until all are trained
    code, output = run("--resume", "finals", "--results", tmp_path, final_seeds=None)
    assert code == 0, output
    assert "final runs: " in output
    assert "the search is over" in output  # and does not go on, whatever there was time for
    again = {path.name for path in (folder.path / "finals").glob("session-1/00*")}
    assert again
    assert not again & before
    best, finals = (folder.read_summary()[name] for name in ("best", "finals"))
    assert finals == {"runs": 6, "trained": 6, "epoch": EPOCHS, "epochs": EPOCHS}
    assert [told["seed"] for told in best["seeds"]] == [0, 1, 2]  # which a user has who asks for nothing
    chosen, elbos = best["seeds"][median(best["seeds"], MIN_KL)], [told["val_elbo"] for told in best["seeds"]]
    assert all(best[name] == chosen[name] for name in ("epoch", "val_elbo", "kl", "code_gain"))
    assert f"{chosen['val_elbo']:.3f} (3 seeds: {min(elbos):.3f} to {max(elbos):.3f}; baseline" in output
    loaded = checkpoint.load(folder.best)
    provenance = loaded.record["metrics"]["provenance"]
    assert [provenance[name] for name in ("sweep", "trial", "seed", "epoch", "fingerprint")] == [
        *("finals", best["trial"], chosen["seed"], chosen["epoch"], load_corpus(str(chords)).fingerprint),
    ]
    assert provenance["revision"] == revision()
    assert_same(loaded.model.state_dict(), straight(chords, best["params"], chosen["seed"]))
