"""What benchmarks share: the README's tables come from their files, published figures are found, timed runs end."""

import json
import re
import time

import numpy as np
import pytest
from sweeping import open_study, search
from tiny import CPU, make_corpus, make_music, make_wide_rows, params_of

from benchmarks import search_efficiency, steering, tables, timed_training, train_step
from benchmarks.common import Table
from benchmarks.contenders.shared import settings_of
from benchmarks.elbo_table import finalists, fitting_epochs
from benchmarks.published import published
from benchmarks.timed_training import Pace, train
from sweep.arguments import parse
from sweep.prepare import prepare
from sweep.record import TrialRecord
from sweep.replay import Moment
from vae.config import Config
from vae.corpus import save_corpus
from vae.encoding import PITCHES, DataSpec
from vae.schedules import learning_rate
from vae.trainer import Trainer, TrainingData


def test_the_readmes_tables_are_those_of_the_recorded_figures():
    assert tables.main(["--check"]) == 0


def test_a_typed_figure_is_noticed(tmp_path):
    text = (tables.ROOT / "README.md").read_text()
    (tmp_path / "README.md").write_text(text.replace("| ---: |", "| ---: |\n| typed | 1 |", 1))
    assert tables.main(["--check", "--readme", str(tmp_path / "README.md")]) == 1


def test_a_replay_without_curves_says_how_to_have_some(capsys):
    assert search_efficiency.main(["--data", "none", "--contender", "ours"]) == 2
    assert "none: no curves; record them by python -m benchmarks.curves." in capsys.readouterr().err


def test_resamples_set_the_targets_that_searches_were_ended_at_whoever_else_is_compared():
    def made(best):
        moments = [Moment(1.0, 5, best)]
        return search_efficiency.Made(search_efficiency.Job("made", "made", 1, 0, 10), moments)

    def targets(runs):
        return [search_efficiency.target_of(again["base"], 10) for again in search_efficiency.resampled(runs)]

    base, other = ([made(step - worse) for step in range(20)] for worse in (20.0, 30.0))
    assert len(set(targets({"base": base}))) > 5
    assert targets({"base": base}) == targets({"other": other, "base": base})


@pytest.mark.parametrize("corpus", [make_music(), make_wide_rows(16 * PITCHES)], ids=["music", "wide rows"])
def test_benchmarks_search_the_space_that_a_sweep_over_the_same_data_does(corpus, tmp_path):
    save_corpus(corpus, tmp_path / "made.npz")
    words = ["--data", str(tmp_path / "made.npz"), "--results", str(tmp_path / "results")]
    settings, _ = prepare(parse(words))
    assert settings_of(corpus.spec, settings.epoch_steps).task == settings.task


def test_the_share_of_the_limit_is_that_of_the_limit_beside_it():
    figures = train_step.turn("dense", TrainingData.load(make_corpus(), CPU), operations=1e6, seconds=0.1)
    operations = figures["share_of_limit"] * 1e9 * figures["limit_gflops"]
    assert operations == pytest.approx(1e6 * figures["steps_per_second"], rel=1e-9)


def test_a_table_is_plain_for_a_terminal_and_markdown_for_the_readme():
    table = Table(("name", "x"), [("a", "1.5"), ("long", "2")])
    assert table.plain() == "name    x\na     1.5\nlong    2"
    assert table.markdown() == "| name | x |\n| --- | ---: |\n| a | 1.5 |\n| long | 2 |"


def test_published_results_are_known_by_the_files_name():
    assert {row.model: row.bound for row in published("jsb_chorales")}["DMM-Aug-NADE"] == 5.34
    assert published("MuseData") == published("muse")
    assert published("Piano-midi.de") == published("piano_midi") != ()
    assert published("my_songs") == published("piano_jazz") == published("jsb16th") == ()


def test_songs_have_all_of_themselves_and_nothing_is_said_where_all_are_alike():
    spec = DataSpec("roll", PITCHES, 4, 16, 100.0, 16, 32)
    songs = [np.zeros((8, PITCHES), np.uint8) for _ in range(4)]
    for number, song in enumerate(songs[:3]):
        song[: 2 + number, [40 + number, 60]] = 1
    alike = steering.compare(songs, songs, spec)  # the last is silent
    assert alike == {"classes": pytest.approx(1.0), "polyphony": None, "notes": None, "pitch": pytest.approx(1.0)}
    other = steering.compare(songs[:3], [np.roll(song, 1, axis=1) for song in songs[:3]], spec)
    assert other["classes"] == pytest.approx(0.0)
    assert other["pitch"] == pytest.approx(1.0)


@pytest.mark.parametrize(("better", "over"), [(True, False), (False, True)])
def test_a_patient_run_ends_when_nothing_better_comes(monkeypatch, better, over):
    now = 0.0
    monkeypatch.setattr("benchmarks.timed_training.time.monotonic", lambda: now)
    pace = Pace(seconds=10_000.0, patience=0.3)
    pace.observe(10.0, 10.0, scored=True, better=True)
    now = 1_000.0
    pace.observe(10.0, 10.0, scored=True, better=better)
    now = 1_200.0
    assert pace.over() is over


def test_the_learning_rate_falls_within_what_the_speed_leaves_time_for(monkeypatch):
    now = 0.0
    monkeypatch.setattr("benchmarks.timed_training.time.monotonic", lambda: now)
    pace = Pace(seconds=100.0, patience=1.0)
    now = 10.0
    pace.observe(10.0, 10.0, scored=False, better=False)
    assert pace.epochs_left() == 9.0
    now = 40.0
    pace.observe(30.0, 30.0, scored=False, better=False)
    assert pace.epochs_left() == 3.0


def test_an_epoch_that_does_not_fit_is_not_begun_and_the_last_that_does_is_scored(monkeypatch):
    now = 0.0
    monkeypatch.setattr("benchmarks.timed_training.time.monotonic", lambda: now)
    pace = Pace(seconds=100.0, patience=1.0)
    pace.observe(30.0, 20.0, scored=True, better=True)  # scoring takes half as long as training
    now = 30.0
    assert not pace.due()
    now = 50.0
    assert pace.due()
    assert not pace.over()
    now = 80.0
    assert pace.over()


@pytest.mark.parametrize(("best", "trained", "epochs"), [(27, 27, None), (21, 27, None), (12, 27, 18), (3, 9, 5)])
def test_a_configuration_that_overfitted_is_trained_about_as_long_as_suits_it(best, trained, epochs):
    record = TrialRecord(0, {}, epoch=trained, best={"epoch": float(best)})
    assert fitting_epochs(record, []) == epochs


@pytest.mark.parametrize(
    ("elbos", "chosen"), [((-5, -6, -4, -4.5), [2, 0]), ((-5, -4, -6, -4.5), [1, 3]), ((-5,), [0]), ((), [])]
)
def test_the_best_trial_is_trained_on_and_the_best_of_the_defaults(folder, elbos, chosen):
    """The first two try what their families have by default."""
    study = open_study(folder.journal, 5)
    search(study, len(elbos), lambda record: elbos[record.number])
    assert [record.number for record in finalists(study)] == chosen


def test_a_timed_run_has_no_more_epochs_than_told_and_its_learning_rate_falls_within_those():
    corpus = make_corpus()
    config = Config.for_data(corpus.spec, params_of("binary", "dense", batch_steps=50_000))
    data = TrainingData.load(corpus, CPU)
    trainer = train(config, data, seed=0, seconds=60.0, patience=1.0, most_epochs=1)
    assert (trainer.epoch, trainer.config.lr_decay) == (1, 100_000)


def test_a_timed_run_goes_on_from_a_trial(tmp_path):
    corpus = make_corpus()
    config = Config.for_data(corpus.spec, params_of("binary", "dense", batch_steps=50_000, lr_decay=7))
    data = TrainingData.load(corpus, CPU)
    trial = Trainer(config, data, seed=3)
    trial.train_epoch()
    trial.save(tmp_path)
    longer = train(config, data, seed=3, seconds=60.0, patience=1.0, most_epochs=2, begin=tmp_path)
    assert longer.epoch == 2
    assert longer.train_seconds > trial.train_seconds
    no_longer = train(config, data, seed=3, seconds=60.0, patience=1.0, most_epochs=1, begin=tmp_path)
    assert no_longer.best.metrics == trial.best.metrics  # times too


def test_a_timed_run_that_diverges_at_once_is_told_in_one_line(tmp_path, capsys):
    save_corpus(make_corpus(), tmp_path / "made.npz")
    wild = params_of("binary", "dense", batch_steps=50, learning_rate=10.0, lr_warmup=0, weight_decay=10.0)
    words = ["--params", json.dumps(wild), "--minutes", "1", "--out", str(tmp_path / "out")]
    assert timed_training.main(["--data", str(tmp_path / "made.npz"), *words]) == 1
    assert re.fullmatch(r"diverged in epoch 1: .*\n", capsys.readouterr().out)
    assert not (tmp_path / "out").exists()


def test_a_timed_run_ends_in_its_time_with_a_fallen_learning_rate(monkeypatch):
    monkeypatch.setattr("benchmarks.timed_training.time.monotonic", time.process_time)  # others may want the core
    for module in ("vae.trainer", "benchmarks.timed_training"):
        monkeypatch.setattr(f"{module}.EPOCH_STEPS", 10_000)  # else only few epochs would fit
    corpus = make_corpus()
    config = Config.for_data(corpus.spec, params_of("binary", "dense", batch_steps=2000))
    data, began = TrainingData.load(corpus, CPU), time.process_time()
    trainer = train(config, data, seed=0, seconds=3.0, patience=1.0)
    seconds = time.process_time() - began
    assert seconds < 3.0 + seconds / trainer.epoch  # the last may take longer than any before, but not by a whole one
    assert trainer.best is not None
    rate = learning_rate(trainer.config, trainer.optimizer_step, trainer.steps_seen)
    assert rate < 0.1 * config.learning_rate
