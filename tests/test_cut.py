"""A search whose journal breaks off, wherever, goes on to what it would have come to."""

import math

import pytest
from sweeping import report

from sweep.journal import mend
from sweep.replay import Curve, Point, TuneSearch, replay
from sweep.rungs import PROMOTION, STOPPING
from sweep.scheduler import Asha
from sweep.searcher import StudySearcher
from sweep.study import Study

TRIALS = 12
SCORED = (1, 2, 3, 6, 9)


def values(study):
    """How many trials have been to each rung."""
    return [study.standings.count(rung) for rung in (1, 3, 9)]


def curve_of(params):
    """Better the nearer the learning rate is to 2e-3; far above it they diverge."""
    if params["learning_rate"] > 6e-3:
        return Curve((), "diverged in epoch 1")
    distance = abs(math.log(params["learning_rate"] / 2e-3))
    return Curve(tuple(Point(epoch, epoch, report(epoch, -distance - 1.0 / epoch).best) for epoch in SCORED))


def drive(study: Study):
    """One worker takes it to its end; no checkpoint is found, so that what was cut off begins anew."""
    asha = Asha(study, lambda: False)
    searcher = StudySearcher(asha, lambda: False, lambda _: None)
    replay(TuneSearch(searcher, asha, study.settings.min_kl), curve_of, 1, 10_000, study.settings.min_kl)
    study.end()
    return {n: (record.state, record.params, record.values, record.failure) for n, record in study.records.items()}


@pytest.mark.parametrize(("scheduler", "max_epochs"), [(PROMOTION, 9), (PROMOTION, 1), (STOPPING, 9)])
def test_wherever_its_journal_breaks_off_a_search_goes_on_to_the_same_end(make_study, tmp_path, scheduler, max_epochs):
    """After a record or within the next: first points, proposals, values and ends are the same."""
    settings = {"scheduler": scheduler, "max_epochs": max_epochs}
    whole, cut = tmp_path / "whole.log", tmp_path / "cut.log"
    study = make_study(TRIALS, whole, **settings)
    begun = whole.read_bytes().count(b"\n")
    expected = drive(study)
    states = {state for state, *_ in expected.values()}
    assert states == {"stopped", "completed", "failed"} - ({"stopped"} if max_epochs == 1 else set())
    lines = whole.read_bytes().splitlines(keepends=True)
    for count in range(begun, len(lines)):
        cut.write_bytes(b"".join(lines[:count]) + lines[count][: 40 * (count % 2)])
        mend(cut)
        assert drive(make_study(TRIALS, cut, **settings)) == expected, (count, lines[count])


def test_a_search_that_is_extended_promotes_the_best_of_all(make_study, tmp_path):
    """Those too that waited in vain when it ended first."""
    path, settings = tmp_path / "extended.log", {"max_epochs": 9}
    drive(make_study(7, path, **settings))
    study = make_study(28, path, **settings)
    study.go_on(28)
    drive(study)
    first, second, top = values(study)
    assert second >= first // 3 >= 6
    assert top >= second // 3 >= 2
