"""What the doctor says of a cluster that it can't join; files of clusters are in test_cluster_file."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from sweeping import ROOT, wait_for

from sweep import doctor

pytestmark = pytest.mark.xdist_group("ray")  # a core for all that starts Ray, the other for the rest

TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}
_OTHER_VERSION = """
import json, sys
from ray._raylet import GcsClient
client, key = GcsClient(address=sys.argv[1]), b"CLUSTER_METADATA"
told = json.loads(client.internal_kv_get(key, namespace=b"cluster")) | {"ray_version": sys.argv[2]}
client.internal_kv_put(key, json.dumps(told).encode(), True, namespace=b"cluster")
"""


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


def examine(address, home, **further):
    """The doctor's exit code and what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "sweep.doctor", "--address", address],
        env=_environment(home, **further),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    return done.returncode, done.stdout + done.stderr


def test_this_machine_alone_is_no_cluster(capsys):
    assert doctor.main(["--address", "local"]) == 2
    assert capsys.readouterr().err.startswith("error: no Ray cluster on this machine; pass --cluster FILE")


@pytest.mark.parametrize(
    "further", [{}, {"RAY_AUTH_MODE": "token"}, TOKEN | {"RAY_AUTH_TOKEN": "1" * 64}], ids=["mode", "none", "other"]
)
def test_a_cluster_that_wants_another_token_is_told_as_such(head, tmp_path, further):
    code, output = examine(head, tmp_path, **further)
    assert code == 2, output
    assert output.startswith(f"error: --address {head}: that Ray cluster asks for another token")
    assert output.count("\n") == 1


def test_a_cluster_of_another_version_is_told_as_such(head, tmp_path):
    def become(version):
        subprocess.run(
            [sys.executable, "-c", _OTHER_VERSION, head, version], env=_environment(tmp_path, **TOKEN), check=True
        )

    become("2.59.0")
    code, output = examine(head, tmp_path, **TOKEN)
    assert code == 2, output
    assert f"error: --address {head}: Version mismatch: The cluster was started with: Ray: 2.59.0" in output
    assert output.count("\n") == 1
    become("2.60.0")
    assert "nothing wrong found" in examine(head, tmp_path, **TOKEN)[1]
