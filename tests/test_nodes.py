"""What is wrong with the nodes of a cluster, by what they tell; how they are asked is in tests/cluster."""

from dataclasses import replace

import pytest

from sweep.nodes import Facts, _absent, _of_node, _of_versions, _open_doors, require_sound
from vae.errors import UserError

SOUND = Facts("w1", {"ray": "2.60.0", "torch": "2.13.0"}, 1, "13.0", 65536, 50 * 2**30, 8 * 2**30, True, None)


def test_nothing_is_found_where_nothing_is_wrong():
    assert _of_node(SOUND, {"GPU": 1.0, "CPU": 4.0}, "s3://music", True) == []
    assert _of_versions([SOUND, replace(SOUND, host="w2")]) == []


@pytest.mark.parametrize(
    ("change", "written", "line"),
    [
        (
            {"gpus": 0},
            True,
            "w1: torch can compute on 0 of 1 GPUs; it is built for CUDA 13.0: update the driver, or install",
        ),
        (
            {"gpus": 0, "cuda": ""},
            True,
            "w1: torch can compute on 0 of 1 GPUs; it is built without CUDA: install a build for the driver",
        ),
        ({"files": 1024}, True, "w1: may open 1024 files; `ulimit -n 65536` before `ray start`."),
        ({"disk": 2**30}, True, "w1: 1.0 GiB of disk are free; checkpoints pass through it, make room."),
        ({"memory": 2**30}, True, "w1: 1.0 GiB of memory are free; a trial takes up to 1.5."),
        ({"refused": "s3://music: expired"}, False, "w1: s3://music: expired"),
        ({"sees_driver": False}, True, "w1: /data is not shared: what one node writes there, another does not find."),
        ({}, False, "w1: /data is not shared: what one node writes there, another does not find."),
    ],
)
def test_each_problem_is_a_line_that_names_the_node(change, written, line):
    (found,) = _of_node(replace(SOUND, **change), {"GPU": 1.0}, "/data", written)
    assert found.startswith(line)


def test_nodes_with_another_version_than_most_are_named():
    other = replace(SOUND, host="w3", versions={"ray": "2.59.0", "torch": "2.13.0"})
    found = _of_versions([SOUND, replace(SOUND, host="w2"), other])
    assert found == ["w3: ray is 2.59.0, elsewhere 2.60.0; install the same."]


def test_machines_of_the_file_that_have_not_joined_are_named():
    config = {"provider": {"type": "local", "worker_ips": ["10.0.0.1", "localhost", "10.0.0.3"]}}
    assert _absent(config, {"10.0.0.1", "127.0.0.1", "10.0.0.9"}) == ["10.0.0.3"]
    assert _absent({"provider": {"type": "aws"}}, {"10.0.0.1"}) == []


@pytest.mark.parametrize(
    ("problems", "told"),
    [
        (["w1: no room."], r"^w1: no room\. --force begins all the same\.$"),
        (
            ["w1: no room.", "w2: old."],
            r"^w1: no room\. \(and 1 more: python -m sweep\.doctor\) --force begins all the",
        ),
    ],
)
def test_problems_keep_a_sweep_from_beginning(problems, told):
    said = []
    with pytest.raises(UserError, match=told):
        require_sound(problems, ["open."], False, said.append)
    assert said == ["warning: open."]


def test_who_insists_is_warned_of_problems_alone():
    said = []
    require_sound(["w1: no room.", "w2: old."], ["open."], True, said.append)
    assert said == ["warning: open.", "warning: w1: no room.", "warning: w2: old."]


@pytest.mark.parametrize(
    ("mode", "dashboard", "told"),
    [
        ("token", "127.0.0.1:8265", []),
        ("token", "", []),  # there is none
        ("token", "10.0.0.1:8265", ["the dashboard listens at 10.0.0.1:8265: --dashboard-host=127.0.0.1 on the head"]),
        (None, "127.0.0.1:8265", ["the cluster takes jobs from whoever reaches it: RAY_AUTH_MODE is not token"]),
        (
            "disabled",
            "10.0.0.1:8265",
            ["the cluster takes jobs from whoever", "the dashboard listens at 10.0.0.1:8265"],
        ),
    ],
)
def test_open_doors_are_told_and_keep_no_sweep_from_beginning(mode, dashboard, told, monkeypatch):
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    if mode is not None:
        monkeypatch.setenv("RAY_AUTH_MODE", mode)
    said = []
    require_sound([], _open_doors(dashboard), False, said.append)
    assert len(said) == len(told)
    assert all(line.startswith(f"warning: {words}") for line, words in zip(said, told, strict=True))
