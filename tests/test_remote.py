"""What a cluster is told, and what of one that can't be reached; how sweeps run on one is in tests/cluster."""

import argparse
import json
import re
import shutil
from pathlib import Path

import pytest
import yaml

from sweep.remote import submit, watch
from vae.errors import UserError


@pytest.fixture
def args(tmp_path, monkeypatch):
    """Of a sweep on a cluster at AWS whose results are in a bucket."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "aws.yaml"
    path.write_text(yaml.safe_dump({"provider": {"type": "aws"}, "setup_commands": ["export SWEEP_RESULTS=s3://b/x"]}))
    return argparse.Namespace(cluster=path, watch="far-1127-200853", data="bach", resume=None, name=None, given=())


@pytest.fixture
def typed(monkeypatch):
    """Commands that Ray's launcher is given for the head; it fails at the one that is put in here."""
    commands, failing = [], []

    def run_on_cluster(_, cmd):
        commands.append(cmd)
        if any(word in cmd for word in failing):
            raise SystemExit("ssh: connection refused")

    monkeypatch.setattr("ray.autoscaler.sdk.run_on_cluster", run_on_cluster)
    return commands, failing


@pytest.fixture
def shared(args, typed, tmp_path, monkeypatch):
    """Writes a sweep, with or without a best, into a folder that a cluster's machines share; Ray's rsync copies it."""
    del typed
    args.cluster.write_text(args.cluster.read_text().replace("s3://b/x", str(tmp_path / "shared")))

    def rsync(_, source, target, down):
        if not (down and Path(source).exists()):
            raise SystemExit(f"rsync: {source}: No such file or directory")
        copy = (lambda *paths: shutil.copytree(*paths, dirs_exist_ok=True)) if source.endswith("/") else shutil.copy
        copy(source, target)

    def write(trial):
        files = {"study.log", "data.npz", "trials.csv", "tensorboard/sweep/events", "trials/session-0/00000/weights"}
        for name in files | ({"best/metrics.json"} if trial is not None else set()):
            path = tmp_path / "shared" / "far" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        (tmp_path / "shared" / "far" / "summary.json").write_text(json.dumps({"best": {"trial": trial}}))

    monkeypatch.setattr("ray.autoscaler.sdk.rsync", rsync)
    return write


@pytest.mark.parametrize("trial", [None, 3])
def test_what_a_cluster_wrote_into_a_folder_is_copied_here_its_data_too_and_its_best_if_it_has_one(
    args, shared, tmp_path, trial
):
    shared(trial)
    watch(args)
    here = tmp_path / "results" / "far"
    copied = {path.relative_to(here).as_posix() for path in here.rglob("*") if path.is_file()}
    assert copied == {
        *("study.log", "data.npz", "summary.json", "trials.csv", "tensorboard/sweep/events"),
        *(("best/metrics.json",) if trial is not None else ()),
    }
    assert (tmp_path / "results" / "latest").resolve() == here


def test_a_clusters_sweep_is_found_where_commands_here_look_for_sweeps(args, shared, tmp_path, monkeypatch):
    monkeypatch.setenv("SWEEP_RESULTS", str(tmp_path / "sweeps"))
    shared(3)
    watch(args)
    assert (tmp_path / "sweeps" / "latest" / "best" / "metrics.json").exists()
    args.cluster.write_text(args.cluster.read_text().replace(str(tmp_path / "shared"), "s3://b/x"))
    submit(["--trials", "3"], args, "far")
    assert (tmp_path / "sweeps" / "latest").read_text() == "s3://b/x/far"
    assert not (tmp_path / "results").exists()


def test_who_watches_when_the_connection_breaks_is_not_told_to_end_what_runs(args, typed):
    typed[1].append("ray job logs")
    for begin in (watch, lambda args: submit(["--trials", "3"], args, "far")):
        with pytest.raises(UserError, match=r"the connection did .*connection refused") as error:
            begin(args)
        assert "ray up" not in str(error.value)
        again = re.escape(f"watch it again: `python -m sweep.run --cluster {args.cluster} --watch far-")
        assert re.search(rf"{again}\d{{4}}-\d{{6}}`", str(error.value))
        assert str(error.value).endswith("goes on by --resume far.")


def test_who_can_not_reach_a_cluster_is_told_what_starting_it_ends(args, typed):
    typed[1].append("ray job list")
    with pytest.raises(UserError, match=r"`ray up .*aws.yaml` starts it, and ends what runs there"):
        submit(["--trials", "3"], args, "far")


def test_data_that_no_path_leads_to_are_left_to_the_head(args, typed):
    args.data = "~nobody-has-this-name/tunes"
    typed[1].append("ray job submit")
    with pytest.raises(UserError):
        submit([f"--data={args.data}"], args, "far")
    assert not any("sweep-data" in " ".join(map(str, words)) for words in typed[0])


def test_data_in_a_home_folder_are_sent_too(args, typed, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "tunes").mkdir()
    args.data = "~/tunes"
    typed[1].append("mkdir")
    with pytest.raises(UserError, match="could not be started there"):
        submit(["--data=~/tunes"], args, "far")
    assert re.search(r"mkdir -p ~/sweep-data/\w{8}-tunes$", typed[0][-1])


@pytest.mark.parametrize("code", ["0123456789ab+changes", None])
def test_a_sweep_is_told_the_revision_of_what_it_runs(args, typed, monkeypatch, code):
    monkeypatch.setattr("sweep.remote.revision", lambda: code)
    submit(["--trials", "3"], args, "far")
    (job,) = (command for command in typed[0] if "ray job submit" in command)
    told = f"&& SWEEP_REVISION={code} exec python" if code else "&& exec python"
    assert f"cd ~/music-vae-sweep {told} -m sweep.run --trials 3 --name far" in job
