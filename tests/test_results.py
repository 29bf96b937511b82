"""The folder of a sweep."""

import pytest
from sweeping import write_checkpoint

from sweep.record import TrialRecord, folder_of
from sweep.results import BEST_KEYS, TEST_KEYS, TIMES, SweepFolder, chosen, summarise
from sweep.run import main
from sweep.status import main as status
from vae import checkpoint
from vae.errors import UserError


def test_latest_points_to_the_newest(folder):
    newer = SweepFolder(folder.results, "newer")
    newer.create()
    assert (folder.results / "latest").resolve() == folder.path.resolve()  # the newer one has not begun
    newer.make_latest()
    assert (folder.results / "latest").resolve() == (folder.results / "newer").resolve()


def test_the_newest_sweep_is_meant_by_latest_too_and_a_folder_by_its_name(folder):
    folder.make_latest()
    for name in (None, "latest", "latest/", f"{folder.name}/", folder.name):
        assert chosen(str(folder.results), name).name == folder.name


def test_the_newest_checkpoint_is_that_with_the_most_epochs(folder):
    turns = [folder_of({"number": 7, "turn": turn}) for turn in (3, 4)]
    write_checkpoint(folder.path / "trials" / "session-0" / turns[0], 1, epochs=2)
    newest = write_checkpoint(folder.path / "trials" / "session-1" / turns[1], 0, epochs=3)
    runs = [TrialRecord(number, {}).prefix for number in (7, 8)]
    assert [folder.trials.newest(run) for run in runs] == [str(newest), None]
    assert [folder.trials.trained(run) for run in runs] == [3, 0]


@pytest.mark.parametrize("name", [*checkpoint.FINAL_FILES, checkpoint.TRAINING, checkpoint.COUNTERS])
@pytest.mark.parametrize("cut", ["half", "absent"])
def test_a_checkpoint_that_a_crash_left_in_pieces_is_passed_over(folder, name, cut):
    whole = write_checkpoint(folder.path / "trials" / "session-0" / "00007-00003", 0, epochs=1)
    broken = write_checkpoint(folder.path / "trials" / "session-0" / "00007-00003", 1, epochs=2) / name
    content = broken.read_bytes()
    broken.unlink()
    if cut == "half":
        broken.write_bytes(content[: len(content) // 2])
    assert folder.trials.newest("00007-") == str(whole)


def test_dropping_leaves_other_trials_and_the_one_to_keep(folder):
    old = write_checkpoint(folder.path / "trials" / "session-0" / "00007-00003", 1, epochs=1)
    kept = write_checkpoint(folder.path / "trials" / "session-1" / "00007-00003", 0, epochs=1)
    other = write_checkpoint(folder.path / "trials" / "session-0" / "00008-00003", 0, epochs=1)
    folder.trials.drop("00007-", keep=str(kept))
    assert [old.exists(), kept.exists(), other.exists()] == [False, True, True]
    folder.trials.drop("00007-")
    assert [kept.exists(), other.exists()] == [False, True]


def test_a_folder_begun_later_is_found_once_it_is_told_of(folder):
    assert folder.trials.newest("00007-") is None
    run = folder.path / "trials" / "session-1" / "00007-00003"
    saved = write_checkpoint(run, 0, epochs=1)
    for _ in range(2):
        folder.trials.begins(str(run))
    assert folder.trials.newest("00007-") == str(saved)
    folder.trials.drop("00007-")
    assert not saved.exists()


def test_runs_are_told_apart_by_their_whole_names(folder):
    ten = write_checkpoint(folder.path / "finals" / "session-0" / "00007-seed-1-epochs-90.0", 0, epochs=1)
    assert folder.finals.newest("00007-seed-1-epochs-9.") is None
    assert folder.finals.newest("00007-seed-1-epochs-90.") == str(ten)


def test_every_key_of_a_summary_is_there_before_anything_is_known(make_study):
    summary = summarise(make_study(trials=3), {}, None)
    assert set(summary["best"]) == {*BEST_KEYS, *TEST_KEYS}
    assert all(value is None for value in summary["best"].values())
    assert set(TIMES) <= set(summary)
    assert summary["trials"] == {
        "requested": 3,
        "pending": 3,
        **dict.fromkeys(("running", "paused", "stopped", "completed", "failed"), 0),
    }


def test_a_sweep_has_one_driver_at_a_time_and_status_knows_of_it(make_study, folder, capsys):
    checkpoint.write_json(folder.summary, summarise(make_study(3, folder.journal), {}, None))
    given = ["--results", str(folder.results)]
    with folder.driven():
        assert folder.is_driven()
        with pytest.raises(UserError, match="this sweep runs already"), SweepFolder(folder.results, "test").driven():
            pytest.fail("it has two drivers")
        assert main(["--resume", "test", *given]) == 2
        assert f"{folder.path}: this sweep runs already; wait for its end, or stop it" in capsys.readouterr().err
        assert status(given) == 0
        assert "it does not run" not in capsys.readouterr().out
    assert not folder.is_driven()
    assert status(given) == 0
    assert "it does not run; go on with: python -m sweep.run --resume test" in capsys.readouterr().out
    with folder.driven():
        assert folder.is_driven()
