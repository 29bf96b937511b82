"""The report of a sweep."""

import math
import re

import pytest
from sweeping import new_folder, open_study, report, search
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sweep.report import main
from sweep.uploads import Uploads

FIGURES = ("progress", "survival", "importance", "parallel", "slices", "front")


def worth(record):
    """Some fail, and some of the others have a code that says too little."""
    return None if record.number % 9 == 8 else -5.0 - 4 * record.params["dropout"]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A report of trials in every state: the folder, and the page."""
    folder = new_folder(tmp_path_factory.mktemp("results"))
    study = open_study(folder.journal, 60)
    search(study, 45, worth, lambda record: 0.05 if record.number % 3 else 0.3)
    number = study.ask().number
    study.report(number, report(1, math.nan), rung=True)
    study.finish(number, "stopped")
    study.report(study.ask().number, report(1, -6.0), rung=True)  # still runs
    folder.write_trials(study)
    assert main(["--results", str(folder.results)]) == 0
    return folder, (folder.path / "report.html").read_text()


def test_the_page_holds_every_section_and_needs_nothing_beside_it(written):
    page = written[1]
    assert re.findall(r'<section id="(\w+)">', page) == ["progress", "top", *FIGURES[1:]]
    assert len(re.findall(r'<img alt="[\w ]+" src="data:image/png;base64,', page)) == len(FIGURES)
    assert len(re.findall(r"(?:src|href)=", page)) == len(FIGURES) + len(re.findall(r'href="#', page))
    assert not re.search(r"https?:|url\(|@import", page)


def test_trials_of_every_state_are_counted(written):
    page = written[1]
    assert "47 trials: " in page
    for said in ("5 failed", "1 not ended yet"):
        assert said in page


def test_the_same_figures_are_images_in_tensorboard(written):
    events = EventAccumulator(str(written[0].tensorboard / "report")).Reload()
    assert events.Tags()["images"] == [f"report/{name}" for name in FIGURES]
    assert all(len(events.Images(tag)) == 1 for tag in events.Tags()["images"])


def test_a_second_report_takes_the_place_of_the_first(written, tmp_path):
    folder, page = written
    assert main(["test", "--results", str(folder.results), "--out", str(tmp_path / "again.html")]) == 0
    assert (tmp_path / "again.html").read_text() == page
    assert len(list((folder.tensorboard / "report").iterdir())) == 1


def test_a_sweep_of_another_account_is_read_and_left_as_it_is(written, tmp_path, monkeypatch):
    folder, page = written
    monkeypatch.setattr("os.access", lambda *_: False)
    before = {path: path.stat().st_mtime_ns for path in folder.path.rglob("*")}
    assert main(["test", "--results", str(folder.results), "--out", str(tmp_path / "again.html")]) == 0
    assert (tmp_path / "again.html").read_text() == page
    assert {path: path.stat().st_mtime_ns for path in folder.path.rglob("*")} == before


def test_a_sweep_in_an_object_store_has_the_same_report_on_any_machine(bucket, tmp_path, monkeypatch):
    date, pages = re.compile(r"As of [\d-]+ [\d:]+\."), []  # when the journal came to the machine
    for machine in ("one", "other"):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / machine))
        if not pages:
            folder = new_folder(f"{bucket}/kept")
            with Uploads(folder, print):
                open_study(folder.journal, 5).ask()
        assert main(["--results", f"{bucket}/kept"]) == 0
        (page,) = (tmp_path / machine).rglob("report.html")
        pages.append(date.sub("", page.read_text()))
    assert "1 trials: " in pages[0]
    assert pages[0] == pages[1]


def test_what_there_is_too_little_for_is_said_in_its_place(tmp_path, capsys):
    folder = new_folder(tmp_path)
    open_study(folder.journal, 5).ask()
    assert main(["--results", str(tmp_path)]) == 0
    page = (folder.path / "report.html").read_text()
    assert "Not yet: 15 trials with a value are needed, but there are 0 so far." in page
    assert page.count("Not yet: ") == len(FIGURES)  # survival has a figure at once, the table has not
    assert str(folder.path / "report.html") in capsys.readouterr().out


def test_one_family_and_trials_that_all_fail_are_a_report_too(tmp_path):
    folder = new_folder(tmp_path)
    search(open_study(folder.journal, 20, families=("dense",)), 20, lambda _: None)
    assert main(["--results", str(tmp_path)]) == 0
    assert "20 failed" in (folder.path / "report.html").read_text()


def test_values_that_the_space_no_longer_has_are_left_out(tmp_path, monkeypatch):
    """As of a sweep that another version of the code goes on with."""
    folder = new_folder(tmp_path)
    for recalls in ((0, 64, 128), (64, 128)):
        monkeypatch.setattr("sweep.space.RECALLS", recalls)
        study = open_study(folder.journal, 24, families=("recurrent",), seed=2)
        search(study, 12, worth)
    assert {record.params["recall_width"] for record in study.records.values()} == {0, 64, 128}
    assert main(["--results", str(tmp_path)]) == 0
    assert (folder.path / "report.html").read_text().count("<img") == len(FIGURES)


@pytest.mark.parametrize("arguments", [[], ["unknown"], ["empty"]], ids=["none", "unknown", "empty"])
def test_no_sweep_is_told_in_one_line(tmp_path, capsys, arguments):
    (tmp_path / "empty").mkdir()
    assert main([*arguments, "--results", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "no sweep there" in error


def test_a_place_that_cannot_be_written_is_told_in_one_line(tmp_path, capsys):
    open_study(new_folder(tmp_path).journal, 5).ask()
    (tmp_path / "file").write_text("")
    assert main(["--results", str(tmp_path), "--out", str(tmp_path / "file" / "report.html")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "can't be written" in error
