"""Folders here and in an object store, which must not differ."""

import json

import pytest

from vae.errors import UserError
from vae.store import JOURNAL, Store, copy_of, fetched, point_elsewhere, pointed_elsewhere


@pytest.fixture(params=["folder", "bucket"])
def place(request, tmp_path):
    return str(tmp_path / "kept") if request.param == "folder" else f"{request.getfixturevalue('bucket')}/kept/"


@pytest.fixture
def store(place):
    store = Store(place)
    store.write("a/x", b"1")
    store.write("a/deep/y", b'{"n": 2}')
    store.write("b", b"3")
    return store


def test_what_is_written_is_listed_and_read(store):
    assert sorted(store.files()) == ["a/deep/y", "a/x", "b"]
    assert sorted(store.files("a")) == ["a/deep/y", "a/x"]
    assert store.folders() == ["a"]
    assert store.folders("a") == ["deep"]
    assert (store.read("b"), store.read_json("a/deep/y")) == (b"3", {"n": 2})


def test_what_is_absent_is_nothing(store):
    assert (store.read("c"), store.read_json("c"), store.files("c"), store.folders("c")) == (None, None, [], [])
    store.remove("c")


def test_a_folder_is_removed_with_all_in_it(store):
    store.remove("a")
    assert store.files() == ["b"]


def test_a_place_can_be_had_as_a_folder_of_this_machine(store):
    with fetched(store.at("a")) as folder:
        assert json.loads((folder / "deep" / "y").read_text()) == {"n": 2}
        assert (folder / "x").read_bytes() == b"1"


def test_a_sweep_that_is_not_here_is_where_a_cluster_keeps_the_newest(tmp_path):
    assert pointed_elsewhere(tmp_path) is None
    point_elsewhere(tmp_path, "s3://music/kept", "new")
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / JOURNAL).touch()
    assert pointed_elsewhere(tmp_path) == ("s3://music/kept", "new")
    assert pointed_elsewhere(tmp_path, "other") == ("s3://music/kept", "other")
    assert pointed_elsewhere(tmp_path, "old") is None


def test_a_folder_in_which_a_sweeps_samples_lie_is_not_the_sweep_but_part_of_it_may_be_what_is_asked(tmp_path):
    point_elsewhere(tmp_path, "s3://music/kept", "new")
    for file in ("new/samples/000.mid", "part/best/metrics.json"):
        (tmp_path / file).parent.mkdir(parents=True)
        (tmp_path / file).touch()
    assert pointed_elsewhere(tmp_path, "new") == ("s3://music/kept", "new")
    assert pointed_elsewhere(tmp_path, "part") == ("s3://music/kept", "part")
    assert pointed_elsewhere(tmp_path, "part", "best/metrics.json") is None


def test_copies_of_two_places_are_two_folders():
    assert copy_of("s3://music/a") == copy_of("s3://music/a/")
    assert len({copy_of("s3://music/a"), copy_of("s3://music-a"), copy_of("gs://music/a")}) == 3
    assert str(copy_of("results")) == "results"


@pytest.mark.parametrize(
    ("place", "told"),
    [
        ("s3://absent/kept", "no such bucket"),
        ("ftp://host/kept", "pass a folder, s3://BUCKET"),
        ("s3:///kept", "names no bucket"),
    ],
)
@pytest.mark.usefixtures("s3")
def test_a_place_that_is_none_is_told_in_a_line(place, told):
    with pytest.raises(UserError, match=told) as error:
        Store(place).write("x", b"1")
    assert place.rstrip("/") in str(error.value)
    assert "\n" not in str(error.value)
