"""What TPE sees of a study, and what it makes of it."""

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState, create_trial

from sweep import space
from sweep.sampler import RungSampler, comparable, good_count, groups, highest_rung, is_drawn
from vae.encoding import DataSpec

MUSIC = DataSpec("roll_onset", 176, 4, 12, 90.5, window=64, longest_song=400, typical_song=200)


def trial(number, values, state=TrialState.PRUNED):
    made = create_trial(
        state=state,
        params={"x": number / 1000},
        distributions={"x": FloatDistribution(0.0, 1.0)},
        intermediate_values=values,
        value=max(values.items())[1] if state == TrialState.COMPLETE else None,
    )
    made.number = number
    return made


@pytest.mark.parametrize(("trials", "good"), [(1, 1), (10, 1), (11, 2), (125, 13), (10_000, 13)])
def test_the_good_set_is_a_tenth_and_13_at_most(trials, good):
    assert good_count(trials) == good


def test_the_rung_is_the_highest_that_fills_the_good_set():
    trials = [trial(i, {1: 0.0}) for i in range(20)]
    assert highest_rung(trials) == 1
    trials[3] = trial(3, {1: 0.0, 3: 0.0})
    assert highest_rung(trials) == 1  # two of twenty are wanted
    trials[4] = trial(4, {1: 0.0, 3: 0.0, 9: 0.0})
    assert highest_rung(trials) == 3


def test_there_is_no_rung_before_the_first_value():
    assert highest_rung([]) is None
    assert highest_rung([trial(0, {}, TrialState.RUNNING)]) is None


def test_stopped_running_and_completed_trials_compare_by_their_value_at_the_rung():
    """Two of eleven are wanted: rung 3 has three, rung 27 one."""
    trials = [trial(i, {1: float(i)}) for i in range(8)]
    trials.append(trial(8, {1: 0.0, 3: 5.0, 9: 9.0, 27: 9.0}, TrialState.COMPLETE))
    trials.append(trial(9, {1: 0.0, 3: 7.0}, TrialState.RUNNING))
    trials.append(trial(10, {1: 0.0, 3: 6.0}))
    seen = comparable(trials, seed=0)
    assert [(t.number, t.value) for t in seen[:2]] == [(9, 7.0), (10, 6.0)]
    assert {t.number: t.value for t in seen if t.state == TrialState.COMPLETE} == {8: 5.0, 9: 7.0, 10: 6.0}
    assert {t.number: t.intermediate_values for t in seen if t.state == TrialState.PRUNED} == {
        number: {1: float(number)} for number in range(8)
    }


def test_failed_trials_and_those_without_a_value_come_last():
    trials = [trial(0, {1: 9.0, 3: 9.0}, TrialState.FAIL), trial(1, {}, TrialState.RUNNING), trial(2, {1: -9.0})]
    seen = comparable(trials, seed=0)
    assert [t.number for t in seen] == [2, 0, 1]
    assert seen[1].intermediate_values == seen[2].intermediate_values == {}


def test_of_very_many_trials_all_good_ones_and_some_others_are_seen():
    trials = [trial(i, {1: float(i)}) for i in range(1000)]
    seen = [t.number for t in comparable(trials, seed=0)]
    assert len(seen) == len(set(seen)) == 125
    assert seen[:13] == list(range(999, 986, -1))
    assert seen != [t.number for t in comparable(trials, seed=1)]


def ask(study, seed):
    """A trial whose sampler has seen the others."""
    study.sampler = RungSampler([t for t in study.trials if is_drawn(t)], seed)
    return study.ask()


def drive(count, value_of, task=None):
    """Asks a study for trials, one at a time; their params. A value of None is a failure."""
    study = optuna.create_study(direction="maximize")
    drawn = []
    for number in range(count):
        asked = ask(study, number)
        params = {"x": asked.suggest_float("x", 0.0, 1.0)} if task is None else space.suggest(asked, task)
        asked.set_user_attr("drawn", True)
        drawn.append(params)
        values = value_of(number, params)
        for step, value in (values or {}).items():
            asked.report(value, step)
        study.tell(asked, state=TrialState.PRUNED if values else TrialState.FAIL)
    return drawn


def test_what_shows_at_a_high_rung_outweighs_a_low_one():
    """At the first rung small x look good; a third goes on, and shows that large x are."""
    drawn = drive(60, lambda number, p: {1: -p["x"]} | ({3: p["x"]} if number % 3 == 0 else {}))
    late = sorted(params["x"] for params in drawn[30:])
    assert late[len(late) // 2] > 0.7


def test_a_region_that_fails_is_left():
    """Half of the space; of random draws half would fall there to the end."""
    task = space.Task(space.fitting_families(MUSIC), MUSIC, 0.1, 2_700_000)

    def fails(params):
        return params["learning_rate"] > 5e-4 * 20**0.5

    drawn = drive(120, lambda _, params: None if fails(params) else {1: -params["dropout"]}, task)
    assert sum(fails(params) for params in drawn[:10]) >= 2
    assert sum(fails(params) for params in drawn[60:]) < 6


def study_of(count):
    """Random draws of whole and other numbers, some of which depend on another."""
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(0))
    for _ in range(count):
        asked = study.ask()
        draw(asked)
        asked.set_user_attr("drawn", True)
        asked.report(-asked.params["rate"], 1)
        study.tell(asked, state=TrialState.PRUNED)
    return study


def draw(asked):
    kind = asked.suggest_categorical("kind", ("wide", "deep"))
    asked.suggest_float("rate", 1e-4, 1.0, log=True)
    if kind == "wide":
        asked.suggest_int("width", 64, 1000, step=8)
    else:
        asked.suggest_int("depth", 1, 4, log=True)


def test_a_trial_whose_draws_were_cut_off_is_not_seen():
    clean, torn = study_of(20), study_of(20)
    torn.ask().suggest_float("rate", 1e-4, 1.0, log=True)
    proposals = []
    for study in (clean, torn):
        asked = ask(study, 1)
        draw(asked)
        proposals.append(asked.params)
    assert proposals[0] == proposals[1]


def test_parameters_that_occur_in_the_same_trials_are_drawn_together():
    found = groups(study_of(20).trials)
    assert found["kind"] == found["rate"]
    assert found["kind"].keys() == {"kind", "rate"}
    assert found["width"].keys() == {"width"}
    assert found["depth"].keys() == {"depth"}


def test_whole_numbers_stay_on_their_grid():
    study = study_of(20)
    widths, depths = set(), set()
    for number in range(20):
        asked = ask(study, number)
        widths.add(asked.suggest_int("width", 64, 1000, step=8))
        depths.add(asked.suggest_int("depth", 1, 4, log=True))
    assert len(widths) > 1
    assert all(64 <= width <= 1000 and width % 8 == 0 for width in widths)
    assert len(depths) > 1
    assert depths <= {1, 2, 3, 4}


@pytest.mark.parametrize("drawn_since", [0, 4])
@pytest.mark.parametrize("before", [("old", "both"), ("both",), ("both", "new", "old")])
def test_trials_of_another_version_of_the_space_are_no_obstacle(drawn_since, before):
    """Choices that are gone or new, and a range that moved."""

    def draw(trial, kinds, low):
        trial.suggest_float("as ever", 0.0, 1.0)
        return trial.suggest_categorical("kind", kinds), trial.suggest_float("x", low, low + 1.0)

    trials = []
    for count, space_of in ((12, (before, 0.0)), (drawn_since, (("both", "new"), 0.5))):
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(0))
        for number in range(count):
            asked = study.ask()
            draw(asked, *space_of)
            asked.report(float(number % 5), 1)
            study.tell(asked, state=TrialState.PRUNED)
            made = study.trials[-1]
            made.number = len(trials)
            trials.append(made)
    for seed in range(20):
        kind, x = draw(optuna.create_study(sampler=RungSampler(trials, seed)).ask(), ("both", "new"), 0.5)
        assert kind in ("both", "new")
        assert 0.5 <= x <= 1.5


def test_equal_seeds_and_studies_give_equal_proposals():
    task = space.Task(space.fitting_families(MUSIC), MUSIC, 0.1, 2_700_000)
    first, second = (drive(15, lambda _, params: {1: -params["dropout"]}, task) for _ in range(2))
    assert first == second
