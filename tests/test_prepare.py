"""A sweep to go on with: what it was asked for, and its data wherever they are now."""

import json
import shutil

import numpy as np
import pytest
from sweeping import open_study
from tiny import make_wide_rows

from benchmarks.common import made_songs
from sweep.arguments import parse
from sweep.prepare import prepare
from sweep.results import SweepFolder
from sweep.study import Study
from vae.corpus import save_corpus
from vae.encoding import PITCHES
from vae.errors import UserError


@pytest.fixture
def data(chords, tmp_path):
    return shutil.copy(chords, tmp_path / "chords.json")


@pytest.fixture
def resume(data, tmp_path):
    """Goes on with a sweep that has begun, in bars of eight steps, which no file says."""
    place = ["--results", str(tmp_path / "results")]
    settings, corpus = prepare(parse(["--data", str(data), "--steps-per-bar", "8", "--name", "begun", *place]))
    folder = SweepFolder(tmp_path / "results", "begun")
    folder.create()

    def go_on(*words):
        resumed, found = prepare(parse(["--resume", "begun", *place, *words]))
        assert (found.fingerprint, found.spec) == (corpus.fingerprint, corpus.spec)
        Study(folder.journal, resumed, 3)
        return resumed, found

    Study(folder.journal, settings, 3)
    return go_on


def test_of_data_that_have_moved_the_new_place_is_said_once(data, resume, tmp_path):
    moved = data.rename(tmp_path / "moved.json")
    with pytest.raises(UserError, match=r"chords\.json: no such file or folder"):
        resume()
    for words in (["--data", str(moved)], []):
        settings, corpus = resume(*words)
        assert settings.data == corpus.name == str(moved)


def test_other_data_are_refused(resume, tmp_path):
    other = made_songs(tmp_path / "other.json", 30, 6)
    with pytest.raises(UserError, match=r"other\.json: has changed since the sweep begun began"):
        resume("--data", str(other))


def test_data_that_a_sweep_keeps_are_taken_unless_others_are_given(data, resume, tmp_path):
    kept = SweepFolder(tmp_path / "results", "begun").data
    save_corpus(resume()[1], kept)
    moved = data.rename(tmp_path / "moved.json")
    settings, _ = resume()
    assert settings.data == str(data)
    kept.write_bytes(b"damaged")
    assert resume("--data", str(moved))[1].name == str(moved)


def test_data_that_another_version_kept_are_read_anew_where_they_are(tmp_path):
    data, results = tmp_path / "wide.npz", ["--results", str(tmp_path / "results")]
    save_corpus(make_wide_rows(PITCHES), data)
    settings, corpus = prepare(parse(["--data", str(data), "--name", "test", *results]))
    folder = SweepFolder(tmp_path / "results", "test")
    folder.create()
    open_study(folder.journal, 3, **{name: getattr(settings, name) for name in ("data", "spec", "fingerprint")})
    save_corpus(corpus, folder.data)
    resumed = ["--resume", "test", *results]
    assert prepare(parse(resumed))[1].fingerprint == corpus.fingerprint
    with np.load(folder.data) as saved:
        arrays = dict(saved)
    arrays["meta"] = np.array(json.dumps(json.loads(str(arrays["meta"])) | {"format": 0}))
    np.savez(folder.data, **arrays)
    with pytest.raises(UserError, match=r"data\.npz: damaged, or kept by another version .* pass --data PLACE"):
        prepare(parse(resumed))
    assert prepare(parse([*resumed, "--data", str(data)]))[1].fingerprint == corpus.fingerprint
