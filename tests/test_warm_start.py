"""What a new sweep takes from earlier ones."""

import shutil
from dataclasses import replace

import optuna
import pytest
from sweeping import SETTINGS, report

from sweep import space
from sweep.journal import mend
from sweep.proposal import key_of
from sweep.sampler import ranked
from sweep.study import Study
from sweep.warm_start import MOST_POINTS
from vae.encoding import DataSpec
from vae.errors import UserError

METRED = DataSpec("roll_onset", 176, 4, 16, 100.0, window=64, longest_song=400)
FAMILIES = ("dense", "hierarchical")

with_earlier = pytest.mark.usefixtures("earlier")


def conclude(study, values):
    """Trials that end at the first rung, worth so much each; the function is given a trial's number and params."""
    while (record := study.ask()) is not None:
        study.report(record.number, values(record.number, record.params), rung=True)
        study.finish(record.number, "stopped")


@pytest.fixture(scope="module")
def concluded(tmp_path_factory):
    """Forty trials; the good ones have little dropout. One failed, and one still runs."""
    path = tmp_path_factory.mktemp("earlier") / "study.log"
    study = Study(path, replace(SETTINGS, name="earlier", spec=METRED, families=FAMILIES), 40)
    conclude(study, lambda _, params: report(1, -5.0 - params["dropout"]))
    study.most = 42
    study.ask()
    study.finish(40, "failed", "diverged in epoch 1")
    study.ask()
    return study, path


@pytest.fixture
def earlier(concluded, tmp_path):
    study, path = concluded
    shutil.copytree(path.parent, tmp_path / "earlier")
    return study


@pytest.fixture
def begin(make_study, tmp_path):
    """Begins a sweep that is told of the earlier one, or opens its journal again."""

    def make(name="new", **changes):
        changes = {"spec": METRED, "families": FAMILIES, "warm_start": ("earlier",), **changes}
        return make_study(30, tmp_path / f"{name}.log", name=name, **changes)

    return make


@pytest.fixture
def make_earlier(make_study, tmp_path):
    """Another earlier sweep, of few trials."""

    def make(trials, values, name="earlier", **changes):
        (tmp_path / name).mkdir()
        changes = {"spec": METRED, "families": FAMILIES, **changes}
        study = make_study(trials, tmp_path / name / "study.log", name=name, **changes)
        conclude(study, values)
        return study

    return make


def told(study):
    (line,) = study._optuna.user_attrs["warm_start"]
    return line


def params_of(study, count):
    return [study.ask().params for _ in range(count)]


def test_the_best_come_first_after_the_defaults_none_twice(earlier, begin):
    best = [record.params for record in earlier.top(40) if record.number >= len(FAMILIES)]
    drawn = params_of(begin(), len(FAMILIES) + MOST_POINTS)
    assert [params["dropout"] for params in drawn[len(FAMILIES) :]] == [p["dropout"] for p in best[:MOST_POINTS]]
    assert drawn[len(FAMILIES) :] == best[:MOST_POINTS]


def test_the_defaults_are_no_points_again(make_earlier, begin):
    make_earlier(len(FAMILIES), lambda *_: report(1, -5.0))
    assert told(begin()) == "warm start from earlier: 0 first points; 2 trials to inform proposals"


def test_earlier_sweeps_that_tried_the_same_give_it_once(make_earlier, begin):
    """The first gives five of its seven, the second, its twin, the other two."""
    for name in ("earlier", "twin"):
        made = make_earlier(9, lambda _, params: report(1, -params["dropout"]), name=name)
    new = begin(warm_start=("earlier", "twin"))
    best = [record.params for record in made.top(9) if record.number >= len(FAMILIES)]
    assert params_of(new, 9)[len(FAMILIES) :] == best
    assert "twin: 2 first points" in new._optuna.user_attrs["warm_start"][1]


@pytest.mark.parametrize(("lost", "informing"), [(False, 10), (True, 9)])
def test_what_was_lost_with_its_node_informs_nothing(make_earlier, begin, lost, informing):
    made = make_earlier(9, lambda *_: report(1, -5.0))
    made.most = 10
    made.ask().lost = lost
    made.finish(9, "failed", "said")
    assert f"{informing} trials to inform proposals" in told(begin())


@with_earlier
def test_earlier_trials_inform_the_first_proposal(begin):
    """What earlier trials say of dropout is known before any trial of this sweep has a value."""

    def dropouts(study):
        points = len(FAMILIES) + (MOST_POINTS if study.settings.warm_start else 0)
        return sorted(params["dropout"] for params in params_of(study, points + 15)[points:])

    warm, cold = dropouts(begin()), dropouts(begin(name="cold", warm_start=()))
    assert warm[7] < 0.1 < cold[7]


@with_earlier
def test_what_the_sweep_has_tried_itself_counts_once(begin):
    study = begin()
    defaults = len(FAMILIES)

    def informing():
        return sorted(trial.number for trial in study._informing(study.drawn()) if trial.number < 0)

    before = informing()
    for _ in range(defaults + 1):
        record = study.ask()
    assert informing() == before
    study.report(record.number, report(1, -5.0), rung=True)
    assert len(informing()) == len(before) - 1


@pytest.mark.parametrize(("ends", "known"), [((1, 3), -5.0), ((1, 3, 9), -9.0), ((1, None), None)])
def test_what_an_earlier_sweep_knows_counts_until_this_one_has_come_as_far(make_earlier, begin, ends, known):
    """Or has failed of itself; `known` is the best value at rung 9."""
    make_earlier(9, lambda number, _: report(9, -5.0 - number))
    study = begin()
    defaults = [study.ask() for _ in FAMILIES]
    for epoch in ends:
        if epoch is None:
            study.finish(defaults[0].number, "failed", "diverged")
        else:
            study.report(defaults[0].number, report(epoch, -9.0), rung=True)
    tried = [t for t in study._informing(study.drawn()) if t.params == study.drawn()[0].params]
    assert max((t.intermediate_values[9] for t in tried if 9 in t.intermediate_values), default=None) == known


@with_earlier
def test_earlier_trials_are_no_trials_of_the_sweep(begin):
    study = begin()
    assert study.counts() == dict.fromkeys(study.counts(), 0) | {"pending": 30}
    assert study.ask().number == 0
    assert begin().records.keys() == {0}


@with_earlier
def test_the_journal_alone_goes_on_as_if_nothing_had_happened(begin, tmp_path):
    whole = params_of(begin(name="whole"), 16)
    halves = params_of(begin(), 8)
    shutil.rmtree(tmp_path / "earlier")
    assert halves + params_of(begin(warm_start=()), 8) == whole


def test_the_journal_shows_a_person_what_came_from_where(earlier, begin, tmp_path):
    begin().ask()
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(tmp_path / "new.log")))
    assert optuna.get_all_study_names(storage) == ["new", "warm start from earlier"]
    study, copied = (optuna.load_study(study_name=name, storage=storage) for name in ("new", "warm start from earlier"))
    assert study.user_attrs["settings"]["warm_start"] == ["earlier"]
    assert study.user_attrs["warm_start"] == [
        "warm start from earlier: 5 first points; 41 trials to inform proposals; "
        "left out: 1 outside the space, or without a value"
    ]
    for trial, original in zip(copied.trials, earlier._optuna.trials[:41], strict=True):
        assert (trial.state, trial.params, trial.intermediate_values, trial.datetime_start, trial.user_attrs) == (
            *(original.state, original.params, original.intermediate_values, original.datetime_start),
            original.user_attrs,
        )


@with_earlier
@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"fingerprint": "1" * 64}, "other data"),
        ({"spec": DataSpec("roll", 88, 4, 16, 100.0, window=64, longest_song=400)}, "another encoding"),
        ({"epoch_steps": 5000}, "--epoch-steps was 100000"),
        ({"max_epochs": 9}, "--max-epochs was 27"),
        ({"min_kl": 0.3}, "--min-kl was 0.1"),
    ],
)
def test_values_that_do_not_compare_give_first_points_only(begin, change, why):
    study = begin(**change)
    assert told(study) == f"warm start from earlier: 5 first points; values left out: {why}"
    assert study._earlier == []
    assert len(params_of(study, 8)) == 8


def test_the_best_are_ranked_by_the_new_floor(make_earlier, begin):
    """The earlier sweep had none: its best trials say nothing in their codes."""
    made = make_earlier(9, lambda number, _: report(1, -5.0 + number, kl=0.2 if number < 4 else 0.0), min_kl=0.0)
    drawn = params_of(begin(), 4)[len(FAMILIES) :]
    assert [params["learning_rate"] for params in drawn] == [made.records[n].params["learning_rate"] for n in (3, 2)]


def test_what_the_space_does_not_have_gives_way_to_the_default_and_is_told(make_earlier, begin):
    """Whole songs were windows of 400 steps there, and are of 300 here; and without a metre nothing has bars."""
    made = make_earlier(
        12, lambda _, params: report(1, -5.0 + params["window"] / 1000), families=("recurrent", "hierarchical")
    )
    songs = replace(METRED, steps_per_bar=None, longest_song=300)
    new = begin(fingerprint="1" * 64, spec=songs, families=("recurrent",))
    bars = sum(record.params["family"] == "hierarchical" for record in made.records.values())
    assert told(new).endswith(
        f"; left out: {bars} of family hierarchical, which this data cannot take; "
        "recurrent_window 400, outside the space"
    )
    default, *points = params_of(new, 6)
    assert {params["window"] for params in points} <= set(space.windows("recurrent", songs))
    assert default["window"] in {params["window"] for params in points}


@with_earlier
def test_of_very_many_trials_the_best_inform_and_some_others(earlier, begin, monkeypatch):
    monkeypatch.setattr("sweep.warm_start.MOST_LOOKED_AT", 20)
    monkeypatch.setattr("sweep.warm_start.BEST_LOOKED_AT", 5)
    study = begin()
    assert "; 20 trials to inform proposals; " in told(study)
    assert "; left out: 21 of very many" in told(study)
    best = [key_of(trial.params) for trial in ranked(earlier.drawn())[:5]]
    assert {*best} <= {key_of(trial.params) for trial in study._earlier}


@with_earlier
def test_trials_that_lie_elsewhere_do_not_inform(begin):
    study = begin(families=("dense",))
    assert {trial.params["family"] for trial in study._earlier} == {"dense"}
    assert "of family hierarchical, which is not searched" in told(study)


@with_earlier
def test_a_sweep_that_still_runs_is_read_and_left_alone(begin, tmp_path):
    journal = tmp_path / "earlier" / "study.log"
    journal.write_bytes(journal.read_bytes() + b'{"half a reco')
    before = journal.read_bytes()
    assert "41 trials to inform proposals" in told(begin())
    assert journal.read_bytes() == before


@with_earlier
def test_a_damaged_journal_is_told_in_a_line(begin, tmp_path):
    journal = tmp_path / "earlier" / "study.log"
    journal.write_bytes(b"no record\n" + journal.read_bytes())
    with pytest.raises(UserError, match=r"^[^\n]*earlier/study\.log: not a readable study journal[^\n]*$"):
        begin()


@with_earlier
def test_where_a_journal_breaks_off_a_trial_is_told_by_its_number(begin, tmp_path):
    """Optuna counts those of earlier sweeps before them."""
    study = begin()
    params_of(study, 10)
    with (tmp_path / "new.log").open("a") as journal:
        journal.write("no record\nnor this\n")
    with pytest.raises(UserError, match=r"damaged after record \d+, of trial 9;"):
        mend(tmp_path / "new.log")
