"""The command line of `sweep.run`: what it takes, and what follows from it."""

import re

import optuna
import pytest
from tiny import make_wide_rows

from sweep import doctor, report, run, space, status
from sweep.arguments import check, parse
from sweep.prepare import default_name, prepare
from sweep.run import main, most_trials
from vae import evaluate, sample, train
from vae.config import Config
from vae.corpus import save_corpus
from vae.encoding import PITCHES


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--trials", "0"), "--trials must be at least 1, but got 0"),
        (("--max-epochs", "-1"), "--max-epochs must be at least 1"),
        (("--seed", "-1"), "--seed must lie in 0.."),
        (("--min-kl", "-1"), "--min-kl must be at least 0"),
        (("--final-seeds", "0"), "--final-seeds must be at least 1, but got 0"),
        (("--final-epochs", "9"), "--final-epochs must be at least --max-epochs, 27, but got 9"),
        (("--final-seeds", "1", "--final-epochs", "54"), "--final-epochs needs final runs, but --final-seeds is 1"),
        (("--data", "no/such/place"), "no/such/place: no such file or folder"),
        (("--resume", "nothing"), "no sweep to resume"),
        (("--resume", "x", "--max-epochs", "3"), "--max-epochs is fixed once a sweep has begun"),
        (("--resume", "x", "--max-epochs", "27"), "--max-epochs is fixed once a sweep has begun"),
        (("--resume", "x", "--seed=0"), "--seed is fixed once a sweep has begun"),
        (("--resume", "x", "--warm-start", "y"), "--warm-start is fixed once a sweep has begun"),
        (("--resume", "results/x"), "results/x: must be a name, not a path; pass --results results --resume x."),
        (("--resume", "/a b/x/"), "pass --results '/a b' --resume x."),
        (("--cluster", "none.yaml", "--resume", "results/x"), "must be a name, not a path; pass --resume x."),
        (("--warm-start", "nothing"), "--warm-start nothing: no sweep of this name in "),
        (("--warm-start", "y", "--warm-start", "../x"), "pass --results .. --warm-start x."),
        (("--name", "a/b"), "--name must hold letters"),
        (("--name", ".."), "--name must hold letters"),
        (("--name", "latest"), "and not be 'latest', but got 'latest'"),
        (("--address", "ray://10.0.0.1:10001"), "--address ray://10.0.0.1:10001: must be auto, local or HOST:PORT"),
        (("--results", "s3:/bucket/x"), "must be a folder, s3://BUCKET/"),
        (("--cluster", "none.yaml"), "none.yaml: no such file"),
        (("--cluster", "none.yaml", "--address", "local"), "leave out --address"),
        (("--cluster", "clusters/kuberay.yaml"), "no cluster file"),
        (("--cluster", "none.yaml", "--resume", "latest"), "give the sweep's own name, for latest is another there"),
        (("--watch", "far-1127-200853"), "--watch needs the cluster that the job was submitted to: pass --cluster"),
    ],
)
def test_a_users_error_is_one_line_and_exit_code_2(arguments, told, tmp_path, capsys):
    results = [] if "--results" in arguments else ["--results", str(tmp_path)]
    assert main([*arguments, *results]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert told in error


def test_a_cluster_of_the_environment_that_the_machine_is_not_in_is_told_by_its_name_there(monkeypatch, capsys):
    monkeypatch.setenv("RAY_ADDRESS", "ray://10.0.0.1:10001")
    assert main([]) == 2
    assert capsys.readouterr().err.startswith("error: RAY_ADDRESS=ray://10.0.0.1:10001: must be auto, local or ")


@pytest.mark.parametrize(
    ("data", "stem"), [("tunes.json", "tunes"), (".", "here"), ("-a b-", "a-b-"), (".midi", "midi"), ("/", "sweep")]
)
def test_a_name_by_default_is_one_that_commands_take(data, stem, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    name = default_name(data)
    assert re.fullmatch(rf"{stem}-\d{{8}}-\d{{6}}", name)
    check(parse(["--name", name]))
    assert parse(["--resume", name]).resume == name


@pytest.mark.parametrize(("words", "steps"), [((), 6_250), (("--epoch-steps", "700"), 700)])
def test_epochs_of_wide_rows_are_shorter_unless_told(words, steps, tmp_path):
    """Where each row is as wide as 16 steps of music; the horizon follows."""
    save_corpus(make_wide_rows(16 * PITCHES), tmp_path / "wide.npz")
    given = ["--data", str(tmp_path / "wide.npz"), "--results", str(tmp_path / "results"), *words]
    settings, _ = prepare(parse(given))
    assert settings.epoch_steps == steps
    assert settings.task.horizon == 27 * steps


@pytest.mark.parametrize(("words", "floor"), [((), 1.6), (("--min-kl", "0"), 0.0), (("--min-kl", "0.2"), 0.2)])
def test_the_floor_of_wide_rows_is_higher_unless_told(words, floor, tmp_path):
    save_corpus(make_wide_rows(16 * PITCHES), tmp_path / "wide.npz")
    settings, corpus = prepare(
        parse(["--data", str(tmp_path / "wide.npz"), "--results", str(tmp_path / "results"), *words])
    )
    assert settings.min_kl == pytest.approx(floor)
    if not words:  # the first configurations are the defaults
        params = space.suggest(optuna.trial.FixedTrial(space.first_points(settings.task)[0]), settings.task)
        assert params["rate_target"] == pytest.approx(Config.for_data(corpus.spec, {}).rate_target)


def test_data_in_a_home_folder_are_found_again_by_those_who_resume(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    save_corpus(make_wide_rows(PITCHES), tmp_path / "wide.npz")
    settings, _ = prepare(
        parse(["--data=~/wide.npz", "--results", str(tmp_path / "results")])
    )  # which no shell expands
    assert settings.data == str(tmp_path / "wide.npz")


def test_options_are_not_abbreviated(capsys):
    """What goes to a cluster is all but `--cluster`, by its whole name."""
    with pytest.raises(SystemExit, match="2"):
        parse(["--clus", "cluster.yaml"])
    assert "unrecognized arguments" in capsys.readouterr().err


@pytest.mark.parametrize("command", [run, status, report, doctor, train, sample, evaluate])
def test_an_option_that_is_none_is_told_in_one_line(command, capsys):
    with pytest.raises(SystemExit, match="2"):
        command.main(["--trails=5"])
    assert capsys.readouterr().err == "error: unrecognized arguments: --trails=5; see --help.\n"


@pytest.mark.parametrize("command", [status, report, doctor, sample, evaluate])
def test_the_environment_says_where_results_are_unless_a_command_does(command, monkeypatch):
    monkeypatch.setenv("SWEEP_RESULTS", "s3://music/kept")
    for parser in (command._parse, parse):
        assert parser([]).results == "s3://music/kept"
        assert parser(["--results", "here"]).results == "here"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--trials", "x"], "--trials: invalid int value: 'x'"),
        (["--time-budget", "-5m"], "--time-budget: the value is missing, or begins with '-'"),
        (["--patience", "0"], "--patience: must be a share above 0 and at most 1, but got '0'"),
        (["--family", "lstm"], "--family: invalid choice: 'lstm'"),
    ],
)
def test_a_value_that_is_none_is_told_in_one_line(words, told, capsys):
    with pytest.raises(SystemExit, match="2"):
        run.main(words)
    error = capsys.readouterr().err
    assert error.startswith(f"error: {told}")
    assert error.endswith("; see --help.\n")
    assert error.count("\n") == 1


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("40m", 2400), ("1.5h", 5400), ("1d", 86400), ("40", 40)])
def test_a_time_has_a_unit_or_is_in_seconds_as_help_says(text, seconds, capsys):
    assert parse(["--time-budget", text]).time_budget == seconds
    with pytest.raises(SystemExit, match="0"):
        parse(["--help"])
    assert "without a unit seconds" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("text", ["", "0", "x", "3 s s", "5 weeks"])
def test_a_time_that_is_none_is_refused(text, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["--time-budget", text])
    assert "must be a time above 0 such as 90s, 40m or 2h" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "asked_for", "begun", "most"),
    [
        ([], None, 0, 50),
        (["--trials", "7"], None, 0, 7),
        (["--time-budget", "2h"], None, 0, None),
        (["--time-budget", "2h", "--trials", "7"], None, 0, 7),
        (["--resume", "x"], 9, 7, 9),
        (["--resume", "x"], None, 7, 7),  # a time was to end it
        (["--resume", "x", "--trials", "12"], 9, 9, 12),
        (["--resume", "x", "--time-budget", "2h"], None, 7, None),
        (["--resume", "x", "--time-budget", "2h"], 9, 7, 9),
        (["--resume", "x", "--time-budget", "2h"], 9, 9, None),
    ],
)
def test_a_time_budget_alone_ends_a_sweep_unless_a_number_of_trials_does(words, asked_for, begun, most):
    assert most_trials(parse(words), asked_for, begun) == most


def test_a_family_that_the_data_cannot_have_is_refused_before_anything_begins(chords, tmp_path, capsys):
    words = ["--data", str(chords), "--results", str(tmp_path / "results"), "--family", "hierarchical"]
    assert main(words) == 2
    assert "hierarchical" in capsys.readouterr().err
    assert not (tmp_path / "results").exists()
