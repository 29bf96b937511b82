"""What the doctor says of a cluster that it can't join; files of clusters are in test_cluster_file."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import ray
from processes import begin
from sweeping import ROOT, wait_for

from sweep import doctor

pytestmark = pytest.mark.xdist_group("ray")  # a core for all that starts Ray, the other for the rest

TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}
_OTHER_VERSION = """
import json, sys
from ray._raylet import GcsClient
from sweep.doctor import main

def become(version):
    told = json.loads(client.internal_kv_get(key, namespace=b"cluster")) | {"ray_version": version}
    client.internal_kv_put(key, json.dumps(told).encode(), True, namespace=b"cluster")

address, *versions = sys.argv[1:]
client, key = GcsClient(address=address), b"CLUSTER_METADATA"
for version in versions:
    become(version)
    print("exit code", main(["--address", address]), flush=True)
"""
"""The doctor's look at a cluster that becomes one version after the other."""


def _environment(home, **further):
    """Of a user whose home folder is of the test's own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    soon = {"RAY_NUM_REDIS_GET_RETRIES": "2"}  # seconds, of tries to join
    return kept | soon | {"HOME": str(home), "PYTHONPATH": str(ROOT)} | further


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    """A head of Ray's in token mode; its address."""
    folder = Path(tempfile.mkdtemp(prefix="ray-"))  # not of pytest: sockets have short paths
    options = ("--head", "--block", "--port=0", "--num-cpus=0", "--object-store-memory=80000000")
    words = [sys.executable, "-m", "ray.scripts.scripts", "start", *options, f"--temp-dir={folder}"]
    with (folder / "said").open("w") as said:
        process = subprocess.Popen(
            words,
            env=_environment(tmp_path_factory.mktemp("home"), **TOKEN),
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
    address = folder / "ray_current_cluster"
    try:
        wait_for(lambda: address.exists() and "To terminate" in (folder / "said").read_text())
        yield address.read_text()
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        shutil.rmtree(folder)


OTHERS = {"mode": {}, "none": {"RAY_AUTH_MODE": "token"}, "other": TOKEN | {"RAY_AUTH_TOKEN": "1" * 64}}
"""Environments of accounts that are not let in."""


def test_this_machine_alone_is_no_cluster(capsys):
    assert doctor.main(["--address", "local"]) == 2
    assert capsys.readouterr().err.startswith("error: no Ray cluster on this machine; pass --cluster FILE")


def test_a_cluster_that_wants_another_token_is_told_as_such(head, tmp_path):
    words = [sys.executable, "-m", "sweep.doctor", "--address", head]
    asked = {name: begin(words, env=_environment(tmp_path, **further)) for name, further in OTHERS.items()}
    for name, process in asked.items():
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 2, (name, output)
        assert output.startswith(f"error: --address {head}: that Ray cluster asks for another token"), (name, output)
        assert output.count("\n") == 1, (name, output)


def test_a_cluster_of_another_version_is_told_as_such(head, tmp_path):
    words = [sys.executable, "-c", _OTHER_VERSION, head, "2.59.0", ray.__version__]
    output, _ = begin(words, env=_environment(tmp_path, **TOKEN)).communicate(timeout=120)
    refused, _, let_in = output.partition("exit code 2\n")
    assert f"error: --address {head}: Version mismatch: The cluster was started with: Ray: 2.59.0" in refused
    assert refused.count("\n") == 1
    assert let_in.endswith(": nothing wrong found\nexit code 0\n"), output
