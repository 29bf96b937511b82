"""The live view."""

import io
import re

import pytest
from sweeping import report

from sweep.live import FinalsView, LiveView, duration
from sweep.record import Report
from sweep.seeds import FinalRun


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.4, "0 s"), (42, "42 s"), (59.7, "1 min 00 s"), (185, "3 min 05 s"), (7800, "2 h 10 min"), (None, "unknown")],
)
def test_durations_are_said_as_a_person_would(seconds, said):
    assert duration(seconds) == said


@pytest.fixture
def study(make_study):
    made = make_study(trials=10)
    for number in range(4):
        made.ask().state = "running"
        metrics = {"epoch": 1, "val_elbo": -5.0 - number, "kl": 0.2, "code_gain": 1.0}
        made.report(number, Report(1, [metrics], metrics, 1.0, "here"), rung=True)
    made.finish(0, "stopped")
    made.finish(1, "stopped")
    return made


def test_without_a_terminal_it_says_plain_lines_with_the_best_so_far(study, capsys):
    with LiveView(study, (1, 3), 2, lambda: None):
        pass
    line = capsys.readouterr().out
    assert "2/10 trials tried, 4 epochs, 67% spared, " in line
    assert "best trial 0" in line
    assert "val_elbo -5.000 kl 0.200 code_gain 1.000 at epoch 1" in line


def test_only_trials_that_were_judged_save_epochs(make_study, capsys):
    """Of three epochs: one was held back after the first, one went through, one failed, and one runs."""
    made = make_study(trials=4)
    view = LiveView(made, (1, 3), 2, lambda: None)
    view.refresh(force=True)
    assert "0 epochs, unknown left" in capsys.readouterr().out
    for number, (epoch, end) in enumerate(((1, "stopped"), (3, "completed"), (1, "failed"), (1, None))):
        made.ask()
        made.report(number, report(epoch, -5.0), rung=True)
        if end:
            made.finish(number, end)
    view.refresh(force=True)
    assert "6 epochs, 33% spared, " in capsys.readouterr().out


def test_the_time_left_is_the_shorter_of_budget_and_pace(study):
    view = LiveView(study, (1, 3), 2, lambda: 100.0)
    assert view.time_left() == 100.0  # no trial has ended since it began
    for number in (2, 3):
        study.finish(number, "stopped")
    assert view.time_left() < 100.0  # six more, at the pace of these two
    assert LiveView(study, (1, 3), 2, lambda: None).time_left() is None


def test_an_infeasible_best_is_said_to_be_one(make_study, capsys):
    made = make_study(trials=1)
    made.ask()
    metrics = {"epoch": 1, "val_elbo": -5.0, "kl": 0.0, "code_gain": 0.0}
    made.report(0, Report(1, [metrics], metrics, 1.0, "here"), rung=True)
    LiveView(made, (1,), 1, lambda: None).refresh(force=True)
    assert "infeasible: its code says too little" in capsys.readouterr().out


def test_final_runs_are_shown_with_the_time_that_is_left(tmp_path, capsys, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("sweep.live.time.monotonic", lambda: now[0])
    runs = [FinalRun(4, seed, {}, epochs=27) for seed in range(3)]
    runs[0].saved(tmp_path, 27)
    view = FinalsView(runs)
    view.refresh(force=True)
    assert capsys.readouterr().out == "final runs: 1/3 trained, epoch 0/27, unknown left\n"
    now[0] += 60.0
    runs[1].epoch = 18
    view.refresh(force=True)
    assert capsys.readouterr().out == "final runs: 1/3 trained, epoch 18/27, 2 min 00 s left\n"
    now[0] += 20.0
    view.refresh(force=True)
    assert capsys.readouterr().out == "final runs: 1/3 trained, epoch 18/27, 1 min 40 s left\n"
    runs[2].failure = "diverged"
    view.refresh(force=True)
    assert capsys.readouterr().out == "final runs: 1/3 trained, epoch 18/27, 10 s left\n"


class Terminal(io.StringIO):
    """Of 120 columns."""

    def isatty(self):
        return True

    def shown(self):
        """All that was, without colours and moves of the cursor."""
        return re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", self.getvalue())


@pytest.fixture
def terminal(monkeypatch):
    """Puts one in the place of what pytest captures, which a test can do, and a fixture before it cannot."""
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in (("TERM", "xterm"), ("COLUMNS", "120"), ("LINES", "40")):
        monkeypatch.setenv(name, value)

    def begin():
        made = Terminal()
        monkeypatch.setattr("sys.stdout", made)
        return made

    return begin


def test_on_a_terminal_a_panel_shows_how_far_it_is_the_best_and_what_runs(study, terminal):
    study.ask().state = "running"  # and has not reported yet
    screen = terminal()
    with LiveView(study, (1, 3), 2, lambda: 185.0):
        pass
    shown = screen.shown()
    assert "─ sweep test ─" in shown
    assert re.search(r": 2/10 trials tried, 4 epochs, 67% spared, 3 min 05 s left +│\n", shown)
    assert re.search(r"│ trials +pending 5 +running 3 +stopped 2 +│\n", shown)
    assert re.search(r"│ rungs +epoch 1: 4 +epoch 3: 0 +│\n", shown)
    assert re.search(r"│ best +trial 0 \(\w+\) val_elbo -5\.000 kl 0\.200 code_gain 1\.000 at epoch 1 +│\n", shown)
    assert re.search(r"│ 2 +\w+ +1 +-7\.000 +0\.200 +here +│\n", shown)
    assert re.search(r"│ 4 +\w+ +0 +│\n", shown)
    assert not re.search(r"│ 0 +\w+ +1 +-5\.000", shown)  # it has ended


def test_on_a_terminal_what_is_said_stays_above_the_panel_as_it_is(study, terminal):
    screen, line = terminal(), "trial 3 failed: [x] model.py:100: no room"
    with LiveView(study, (1, 3), 2, lambda: None) as view:
        view.refresh(force=True)
        view.note(line)
    before, after = screen.shown().replace("\r", "\n").split(f"\n{line}\n")
    assert "sweep test" in before
    assert "sweep test" in after


def test_on_a_terminal_a_panel_shows_how_far_final_runs_are(tmp_path, terminal):
    runs = [FinalRun(4, seed, {}, epochs=27) for seed in range(3)]
    runs[0].saved(tmp_path, 27)
    screen = terminal()
    with FinalsView(runs):
        pass
    assert "─ final runs ─" in screen.shown()
    assert "│ final runs: 1/3 trained, epoch 0/27, unknown left │\n" in screen.shown()
