"""The sweep, end to end: the real command, real Ray, small real training."""

import json
import os
import signal
import time
from collections import Counter
from wsgiref.util import setup_testing_defaults

import optuna
import pretty_midi
import pytest
import torch
from optuna_dashboard import wsgi
from sweeping import rows_of, run, start, wait_for
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sweep.arguments import parse
from sweep.begun import read_settings
from sweep.callback import KEPT_TRIALS
from sweep.prepare import prepare
from sweep.results import SweepFolder
from sweep.run import main
from sweep.status import main as status
from sweep.study import Study
from sweep.warm_start import warm_start
from vae import checkpoint, sample
from vae.bounds import TEST_SEED, VALIDATION_SEED, evaluate
from vae.config import FAMILY_NAMES, Config
from vae.corpus import load_corpus
from vae.store import LOCK
from vae.windows import Songs

pytestmark = pytest.mark.xdist_group("ray")  # a core for all that starts Ray, the other for the rest

SUMMARY_KEYS = {
    *("name", "data", "encoding", "seed", "versions", "trials", "best", "baseline", "samples", "epochs_trained"),
    *("train_seconds", "search_seconds", "startup_seconds", "wall_seconds", "train_share", "finals"),
}
BEST_KEYS = {
    *("trial", "params", "epoch", "feasible", "val_elbo", "kl", "code_gain", "active_units"),
    *("test_elbo", "test_elbo_per_song", "test_kl", "test_iwae", "iwae_samples", "seeds"),
}


def count_of(results, name, *states):
    """Trials in these states, as the summary has them; 0 before there is one."""
    try:
        trials = json.loads((results / name / "summary.json").read_text())["trials"]
    except FileNotFoundError:
        return 0
    return sum(trials[state] for state in states)


@pytest.fixture(scope="module")
def finished(chords, tmp_path_factory):
    """A sweep that has run to its end."""
    results = tmp_path_factory.mktemp("results")
    code, output = run(
        *("--data", chords, "--results", results, "--name", "chords", "--trials", 9),
        *("--max-epochs", 9, "--epoch-steps", 24_000),
    )
    assert code == 0, output
    return results, output


def test_the_first_line_says_where_it_runs(finished):
    assert finished[1].splitlines()[0].startswith("sweep chords on this machine: ")


def test_a_winner_that_still_got_better_is_told_with_the_way_on(finished):
    epoch = json.loads((finished[0] / "chords" / "summary.json").read_text())["best"]["epoch"]
    way = f"--resume chords --results {finished[0]} --final-seeds 3 --final-epochs 27"
    assert (way in finished[1]) == (epoch == 9)


def test_it_says_what_it_searches_and_what_it_cannot(finished):
    assert "families: dense" in finished[1]


def test_the_summary_is_complete(finished):
    results, output = finished
    summary = json.loads((results / "latest" / "summary.json").read_text())
    assert set(summary) == SUMMARY_KEYS
    assert set(summary["best"]) == BEST_KEYS
    assert all(value is not None for key, value in summary["best"].items() if key != "seeds"), output
    counts = dict(summary["trials"])
    assert counts.pop("requested") == 9 == sum(counts.values()) == counts["stopped"] + counts["completed"]
    assert summary["epochs_trained"] == sum(int(row["epochs"]) for row in rows_of(results, "chords").values())
    assert 0 < summary["train_share"] < 1


def test_the_winner_is_better_than_the_baseline_and_uses_its_code(finished):
    summary = json.loads((finished[0] / "latest" / "summary.json").read_text())
    best = summary["best"]
    assert best["feasible"]
    assert best["kl"] >= 0.1
    assert best["val_elbo"] > summary["baseline"]["marginal_elbo"] + 2.0
    assert best["test_iwae"] >= best["test_elbo"] - 0.02


def test_best_is_the_checkpoint_that_the_summary_tells_of(finished, chords):
    best = json.loads((finished[0] / "chords" / "summary.json").read_text())["best"]
    loaded = checkpoint.load(finished[0] / "chords" / "best")
    corpus = load_corpus(str(chords))
    for split, seed, prefix in (("valid", VALIDATION_SEED, "val"), ("test", TEST_SEED, "test")):
        songs = Songs(corpus.splits[split], torch.device("cpu"))
        assert evaluate(loaded.model, songs, seed)["elbo"] == pytest.approx(best[f"{prefix}_elbo"], abs=1e-4)
    provenance = loaded.record["metrics"]["provenance"]
    assert (provenance["sweep"], provenance["trial"], provenance["epoch"]) == ("chords", best["trial"], best["epoch"])
    assert provenance["fingerprint"] == corpus.fingerprint
    assert loaded.config == Config.for_data(corpus.spec, best["params"])


def test_no_trial_ranks_above_the_winner(finished):
    summary = json.loads((finished[0] / "chords" / "summary.json").read_text())
    rows = rows_of(finished[0], "chords").values()
    assert all(float(row["val_elbo"]) <= summary["best"]["val_elbo"] for row in rows if float(row["kl"]) >= 0.1)


def test_trials_end_at_rungs(finished):
    rows = rows_of(finished[0], "chords").values()
    assert {int(row["epochs"]) for row in rows} <= {1, 3, 9}
    assert all((int(row["epochs"]) == 9) == (row["state"] == "completed") for row in rows)
    assert {row["state"] for row in rows} == {"stopped", "completed"}


def checkpoints_of(results, name):
    """How many each trial has, by its number."""
    found = (results / name / "trials").glob("*/*/checkpoint_*")
    return Counter(int(path.parent.name.partition("-")[0]) for path in found)


def test_the_best_and_those_that_would_go_on_if_there_were_more_trials_keep_a_checkpoint_each(finished):
    trials = _study(SweepFolder(finished[0], "chords").journal, "chords").trials
    waiting = {trial.number for trial in trials if trial.state == optuna.trial.TrialState.RUNNING}
    completed = {number for number, row in rows_of(finished[0], "chords").items() if row["state"] == "completed"}
    assert len(completed) <= 3  # all are of the best
    assert checkpoints_of(finished[0], "chords") == dict.fromkeys(waiting | completed, 1)


def test_tensorboard_shows_every_trial_from_its_start(finished):
    rows = rows_of(finished[0], "chords")
    for number, row in rows.items():
        events = EventAccumulator(str(finished[0] / "chords" / "tensorboard" / f"{number:05d}")).Reload()
        elbo = events.Scalars("validation/elbo")
        assert [event.step for event in elbo] == [e for e in (1, 2, 3, 6, 9) if e <= int(row["epochs"])]
        trained = [event.step for event in events.Scalars("train/elbo")]
        assert trained == list(range(1, int(row["epochs"]) + 1))
        assert elbo[-1].value == pytest.approx(float(row["val_elbo"]), rel=1e-5)
        assert {"train/log_likelihood", "validation/kl", "schedule/beta", "schedule/learning_rate"} <= set(
            events.Tags()["scalars"]
        )
        assert set(events.summary_metadata) >= {"_hparams_/experiment", "_hparams_/session_start_info"}
    sweep = EventAccumulator(str(finished[0] / "chords" / "tensorboard" / "sweep")).Reload()
    assert "sweep/best_val_elbo" in sweep.Tags()["scalars"]
    assert sweep.Tags()["images"] == ["samples"]
    assert len(sweep.Tags()["audio"]) == 4


def test_optuna_dashboard_opens_the_study(finished):
    journal = optuna.storages.journal.JournalFileBackend(str(finished[0] / "chords" / "study.log"))
    storage = optuna.storages.JournalStorage(journal)
    answer, environment = {}, {"PATH_INFO": "/api/studies"}
    setup_testing_defaults(environment)
    body = wsgi(storage)(environment, lambda status, *_: answer.update(status=status))
    assert answer["status"].startswith("200"), answer
    assert b'"chords"' in b"".join(body)
    trials = optuna.load_study(study_name="chords", storage=storage).trials
    assert {trial.state.name for trial in trials} == {"RUNNING", "COMPLETE"}  # or wait, for more trials to come


def test_the_best_is_played_from_the_newest_sweep(finished, tmp_path, capsys):
    results = finished[0]
    for out in ("a", "b"):
        code = sample.main(
            ["--best", "--results", str(results), "-n", "3", "--seed", "5", "--out", str(tmp_path / out)]
        )
        assert code == 0
    assert "chords" in capsys.readouterr().out
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == ["000.mid", "001.mid", "002.mid", "samples.png"]
    assert all((tmp_path / "a" / n).read_bytes() == (tmp_path / "b" / n).read_bytes() for n in names)
    assert pretty_midi.PrettyMIDI(str(tmp_path / "a" / "000.mid")).instruments[0].notes


def test_the_status_tells_how_far_it_came(finished, capsys, tmp_path):
    assert status(["--results", str(finished[0])]) == 0
    output = capsys.readouterr().out
    summary = json.loads((finished[0] / "latest" / "summary.json").read_text())
    best = summary["best"]
    assert f"best: trial {best['trial']} ({best['params']['family']}) at epoch {best['epoch']:.0f}" in output
    assert f"{summary['epochs_trained']} epochs in " in output
    assert "go on" not in output
    assert status(["none", "--results", str(finished[0])]) == 2
    assert status(["--results", str(tmp_path)]) == 2
    assert "no sweep there" in capsys.readouterr().err


def test_a_sweep_begins_with_the_best_of_an_earlier_one(finished, chords, tmp_path):
    (tmp_path / "chords").symlink_to(finished[0] / "chords")
    tried = [trial.params for trial in _study(SweepFolder(finished[0], "chords").journal, "chords").trials]
    families = sorted({params["family"] for params in tried[len(FAMILY_NAMES) :]})  # of what was no default
    words = ["--data", chords, "--results", tmp_path, "--name", "warm", "--warm-start", "chords", "--max-epochs", 9]
    words += ["--epoch-steps", 24_000, *(word for family in families for word in ("--family", family))]
    args = parse(list(map(str, words)))
    settings, _ = prepare(args)
    (learned,) = warm_start(args.results, settings)
    assert "trials to inform proposals" in learned.report
    folder = SweepFolder(args.results, settings.name)
    folder.create()
    study = Study(folder.journal, settings, None, [learned])
    written = _study(folder.journal, "warm").user_attrs
    assert written["warm_start"] == [learned.report]
    points = written["first_points"][len(families) :]
    assert points
    assert all(point in tried for point in points)
    for _ in written["first_points"]:
        study.ask()
    assert [trial.params for trial in study.drawn()][len(families) :] == points


def test_killed_and_extended_a_sweep_loses_nothing_and_keeps_the_checkpoints_of_the_best(chords, tmp_path, capsys):
    """The driver alone, with a worker on each core, when some trials have ended."""
    options = ("--results", tmp_path)
    journal = SweepFolder(tmp_path, "killed").journal
    process = start(
        *("--data", chords, "--name", "killed", "--trials", 10, "--max-epochs", 9, "--epoch-steps", 4000),
        *("--scheduler", "stopping", *options),
    )
    wait_for(lambda: count_of(tmp_path, "killed", "stopped", "completed") >= 3, process)
    os.kill(process.pid, signal.SIGKILL)  # the driver alone
    process.communicate(timeout=60)
    assert status(["killed", *map(str, options)]) == 0
    assert "it does not run; go on with: python -m sweep.run --resume killed" in capsys.readouterr().out
    trials = _study(journal, "killed").trials
    before = {t.number: t for t in trials if t.state.is_finished()}
    cut_off = {t.number for t in trials if t.number not in before and t.user_attrs["record"]["stops"]}
    assert len(before) >= 3
    code, output = run("--resume", "killed", *options)
    assert code == 0, output
    after = rows_of(tmp_path, "killed")
    assert len(after) == 10
    assert {row["state"] for row in after.values()} <= {"stopped", "completed"}, output
    trials = _study(journal, "killed").trials
    for number, trial in before.items():
        assert trials[number].datetime_complete == trial.datetime_complete  # not run again
        assert trials[number].intermediate_values == trial.intermediate_values
    summary = json.loads((tmp_path / "killed" / "summary.json").read_text())
    assert summary["best"]["test_elbo"] is not None
    code, output = run("--resume", "killed", "--trials", 12, *options)  # more of a finished sweep
    assert code == 0, output
    assert len(rows_of(tmp_path, "killed")) == 12
    study = Study(journal, read_settings(journal, "killed"), None)
    best = {record.number for record in (*study.top(KEPT_TRIALS), *study.finalists())}
    kept = checkpoints_of(tmp_path, "killed")
    assert best - cut_off <= kept.keys() <= best  # who was told to stop as the driver died was not saved
    assert all(kept[number] == 1 for number in best - cut_off)


def _study(journal, name):
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(journal)))
    return optuna.load_study(study_name=name, storage=storage)


def test_ctrl_c_stops_cleanly_keeps_everything_and_says_how_to_go_on(chords, tmp_path):
    process = start(
        *("--data", chords, "--results", tmp_path, "--name", "stopped", "--trials", 500),
        *("--max-epochs", 81, "--epoch-steps", 8000, "--family", "dense"),
        final_seeds=None,
    )
    wait_for(lambda: count_of(tmp_path, "stopped", "paused", "stopped") >= 2, process)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to Ray's processes too
    output, _ = process.communicate(timeout=90)
    assert process.returncode == 0, output
    assert "there were no final runs; go on with: python -m sweep.run --resume stopped" in output
    assert "Traceback" not in output
    summary = json.loads((tmp_path / "stopped" / "summary.json").read_text())
    counts = summary["trials"]
    assert counts.pop("requested") == 500 == sum(counts.values())
    assert counts["running"] == counts["failed"] == 0
    assert counts["paused"] >= 1
    assert summary["best"]["test_elbo"] is not None
    folder = SweepFolder(tmp_path, "stopped")
    rows = rows_of(tmp_path, "stopped")
    paused = [number for number, row in rows.items() if row["state"] == "paused" and row["epochs"] != "0"]
    assert all(folder.trials.newest(f"{number:05d}-") is not None for number in paused)
    assert not folder.finals.sessions()


def test_stopped_before_the_first_epoch_ends_it_says_how_to_go_on_and_nothing_else(chords, tmp_path):
    """By SIGTERM, as `ray job stop` does it, and as an epoch takes long, at once by Ctrl-C."""
    process = start(
        *("--data", chords, "--results", tmp_path, "--name", "early", "--trials", 9),
        *("--epoch-steps", 10**9, "--family", "dense"),
    )
    wait_for(lambda: count_of(tmp_path, "early", "running") >= 1, process)
    os.kill(process.pid, signal.SIGTERM)  # the driver alone, for Ray's processes are not its job's
    time.sleep(1.0)
    assert process.poll() is None  # it waits for the epoch to end
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=90)
    assert process.returncode == 0, output
    assert "not all trials ended; go on with: python -m sweep.run --resume early" in output
    assert "lines above" not in output
    assert "Traceback" not in output


def test_patience_ends_a_search_that_finds_nothing_better(chords, tmp_path):
    code, output = run(
        *("--data", chords, "--results", tmp_path, "--name", "patient", "--trials", 500, "--patience", 0.02),
        *("--max-epochs", 3, "--epoch-steps", 300, "--family", "dense"),
        final_seeds=None,
    )
    assert code == 0, output
    assert "nothing better in the last 0.02 of the budget" in output
    summary = json.loads((tmp_path / "patient" / "summary.json").read_text())
    assert [seed["seed"] for seed in summary["best"]["seeds"]] == [0, 1, 2]  # which a user has who asks for nothing
    counts = summary["trials"]
    assert 10 <= counts["stopped"] + counts["completed"] + counts["paused"] < 500
    assert counts["running"] == counts["failed"] == 0


@pytest.fixture(scope="module")
def short(finished, chords, tmp_path_factory):
    """A sweep that a time ends, with a floor that no code comes to, and which begins with an earlier one's best."""
    results = tmp_path_factory.mktemp("results")
    (results / "chords").symlink_to(finished[0] / "chords")
    code, output = run(
        *("--data", chords, "--results", results, "--name", "short", "--trials", 1000, "--time-budget", "4s"),
        *("--epoch-steps", 4000, "--min-kl", 300, "--family", "dense", "--warm-start", "chords"),
    )
    assert code == 0, output
    return results, output


def test_a_time_budget_ends_the_search(short):
    summary = json.loads((short[0] / "latest" / "summary.json").read_text())
    assert 3.0 < summary["search_seconds"] < 30.0
    assert summary["trials"]["pending"] > 0
    assert summary["best"]["test_elbo"] is not None


def test_without_a_code_that_says_enough_the_best_ranked_wins_with_a_warning(short):
    assert short[1].count("warning: no trial has a code that says enough") == 1
    best = json.loads((short[0] / "latest" / "summary.json").read_text())["best"]
    assert best["feasible"] is False
    assert best["test_elbo"] is not None


def test_what_an_earlier_sweep_gives_is_said_and_written(short):
    (line,) = [line for line in short[1].splitlines() if line.startswith("warm start from chords: ")]
    assert _study(SweepFolder(short[0], "short").journal, "short").user_attrs["warm_start"] == [line]


def test_a_name_that_is_taken_is_refused(finished, chords, capsys):
    assert main(["--data", str(chords), "--results", str(finished[0]), "--name", "chords"]) == 2
    assert "a sweep of this name exists; go on with it by --resume chords" in capsys.readouterr().err


def test_results_that_cannot_be_written_are_told(chords, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["--data", str(chords), "--results", str(tmp_path / "file" / "results")]) == 2
    assert "results can't be written (Not a directory); pass another --results" in capsys.readouterr().err


def test_an_error_before_anything_is_written_is_told_without_a_sweep_to_go_on_with(chords, tmp_path, capsys):
    (tmp_path / "early" / LOCK).mkdir(parents=True)  # where the driver's lock is to be
    assert main(["--data", str(chords), "--results", str(tmp_path), "--name", "early"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {tmp_path / 'early'}: Is a directory")
    assert error.endswith("; mend that, or pass another --results.\n")


def test_data_that_changed_cannot_be_resumed(finished, chords, capsys):
    text = chords.read_text()
    try:
        chords.write_text(text.replace("48", "49"))
        assert main(["--resume", "chords", "--results", str(finished[0])]) == 2
    finally:
        chords.write_text(text)
    assert "has changed since the sweep chords began" in capsys.readouterr().err
