"""What is wrong with a cluster file, before `ray up`."""

import contextlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from sweep.cluster_file import problems, read_cluster, results_of
from sweep.doctor import main
from sweep.remote import is_meant
from sweep.run import main as run
from vae.errors import UserError

ROOT = Path(__file__).parents[1]


@pytest.fixture
def cluster(tmp_path, monkeypatch, bucket):
    """Writes `cluster.yaml` as a user would who has filled it in, but for a change."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)  # what is mounted
    token = tmp_path / ".ray" / "auth_token"
    token.parent.mkdir()
    token.write_text("secret")
    token.chmod(0o600)

    def write(change=None):
        filled = (
            (ROOT / "cluster.yaml")
            .read_text()
            .replace("s3://YOUR-BUCKET", bucket)
            .replace("ami-00000000000000000", "ami-12c6146b")
        )
        config = yaml.safe_load(filled)
        if change is not None:
            change(config)
        path = tmp_path / "cluster.yaml"
        path.write_text(yaml.safe_dump(config))
        return path

    return write


def test_a_file_that_is_filled_in_is_fine(cluster, capsys):
    assert problems(cluster()) == []
    assert main(["--cluster", str(cluster())]) == 0
    assert "nothing wrong found" in capsys.readouterr().out


def test_what_machines_have_may_be_left_to_aws(cluster):
    assert problems(cluster(lambda config: config["available_node_types"]["gpu"].pop("resources"))) == []


@pytest.mark.parametrize("name", ["cluster.yaml", "clusters/on-prem.yaml", "clusters/gcp.yaml"])
def test_what_is_to_be_filled_in_is_told(name):
    found = problems(ROOT / name)
    assert any("to be replaced by yours" in line for line in found)
    assert not any("Ray refuses" in line or "takes no" in line for line in found), found


def _machine(config):
    return config["available_node_types"]["gpu"]["node_config"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda config: config["provider"].update(cache_stoped_nodes=True), "did you mean cache_stopped_nodes"),
        (lambda config: config["provider"].update(spot=True), "provider takes no spot."),
        (lambda config: config["provider"].pop("region"), "provider.region is missing"),
        (
            lambda config: config["provider"].update(region="us-wset-2"),
            "provider.region takes no us-wset-2; did you mean us-west-2",
        ),
        (lambda config: config["provider"].update(type="awss"), "provider.type must be one of"),
        (lambda config: _machine(config).update(InstanceTyp="x"), "gpu.node_config takes no InstanceTyp; did you mean"),
        (
            lambda config: _machine(config)["InstanceMarketOptions"].update(MarketTyp="spot"),
            "gpu.node_config.InstanceMarketOptions takes no MarketTyp; did you mean MarketType",
        ),
        (
            lambda config: _machine(config)["InstanceMarketOptions"].update(MarketType="sopt"),
            "gpu.node_config.InstanceMarketOptions.MarketType takes no sopt; did you mean spot",
        ),
        (
            lambda config: _machine(config).update(InstanceType="g4dn.xlage"),
            "gpu.node_config.InstanceType takes no g4dn.xlage; did you mean g4dn.xlarge",
        ),
        (
            lambda config: _machine(config).update(BlockDeviceMappings={"DeviceName": "/dev/sda1"}),
            "gpu.node_config.BlockDeviceMappings must be of type list, but is {'DeviceName'",
        ),
        (
            lambda config: _machine(config)["BlockDeviceMappings"][0]["Ebs"].update(VolumeSize="100"),
            "gpu.node_config.BlockDeviceMappings.Ebs.VolumeSize must be of type integer, but is '100'",
        ),
        (lambda config: _machine(config).pop("InstanceType"), "gpu.node_config.InstanceType is missing"),
        (lambda config: _machine(config).pop("ImageId"), "gpu.node_config.ImageId is missing"),
        (
            lambda config: _machine(config).update(KeyName="mine"),
            "gpu.node_config.KeyName is not used without auth.ssh_private_key",
        ),
        (
            lambda config: config["auth"].update(ssh_private_key="~/.ray/auth_token"),
            "gpu.node_config.KeyName is missing: the name at AWS",
        ),
        (lambda config: config["file_mounts"].pop("~/.ray/auth_token"), "file_mounts lacks `~/.ray/auth_token"),
        (
            lambda config: config.update(
                head_start_ray_commands=["ray start --head --dashboard-host 0.0.0.0 --port=6379"]
            ),
            "head_start_ray_commands: --dashboard-host 0.0.0.0 shows the dashboard to others",
        ),
        (
            lambda config: config["available_node_types"]["head"].update(resources={"CPU": 2}),
            "head.resources.CPU must be 0",
        ),
        (
            lambda config: [kind.pop("resources") for kind in config["available_node_types"].values()],
            "head.resources.CPU must be 0",
        ),
        (lambda config: config.update(max_wrokers=3), "Ray refuses it: Additional properties are not allowed"),
        (lambda config: config.update(auth="ubuntu"), "Ray refuses auth"),
        (lambda config: config["auth"].update(ssh_private_key=5), "Ray refuses auth.ssh_private_key"),
        (lambda config: config.update(available_node_types=["gpu"]), "Ray refuses"),
        (lambda config: config["available_node_types"]["gpu"].update(resources="CPU"), "Ray refuses"),
        (lambda config: config.update(max_workers="many"), "Ray refuses max_workers"),
        (lambda config: config.update(setup_commands=["true"]), "without RAY_AUTH_MODE=token"),
        (lambda config: config["auth"].update(ssh_private_key="~/none.pem"), "none.pem is not on this machine"),
        (
            lambda config: config["setup_commands"].__setitem__(0, "export SWEEP_RESULTS=s3://absent/x"),
            "s3://absent/x: no such bucket",
        ),
    ],
)
def test_each_mistake_is_a_line_that_names_it(cluster, change, told, capsys):
    path = cluster(change)
    assert any(told in line and str(path) in line for line in problems(path)), problems(path)
    assert main(["--cluster", str(path)]) == 2
    errors = capsys.readouterr().err
    assert told in errors
    assert "Traceback" not in errors


def test_a_token_that_is_absent_or_open_is_told(cluster, tmp_path):
    path = cluster()
    (tmp_path / ".ray" / "auth_token").chmod(0o644)
    assert any("others can read the token" in line for line in problems(path))
    shutil.rmtree(tmp_path / ".ray")
    assert any("no token" in line for line in problems(path))


def test_a_link_to_nothing_among_what_is_copied_is_told(cluster, tmp_path):
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "latest").symlink_to("gone")
    assert any("results/latest is a link to nothing" in line for line in problems(cluster()))


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="no ssh-keygen here")
def test_a_key_that_the_head_could_not_use_is_told(cluster, tmp_path):
    for name, phrase in (("open", ""), ("locked", "secret")):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", phrase, "-f", tmp_path / name], check=True)
        found = problems(cluster(lambda config, name=name: config["auth"].update(ssh_private_key=f"~/{name}")))
        assert any("no key without a passphrase" in line for line in found) == bool(phrase)


def test_a_head_of_ones_own_is_given_by_its_address(tmp_path):
    config = yaml.safe_load((ROOT / "clusters" / "on-prem.yaml").read_text())
    config["provider"]["head_ip"] = "tower"
    path = tmp_path / "on-prem.yaml"
    path.write_text(yaml.safe_dump(config))
    assert any("provider.head_ip must be an address, but is 'tower'" in line for line in problems(path))


@pytest.mark.parametrize("change", ["", "--num-cpus=0", "--num-cpus 0", "--num-cpus=10"])
def test_a_head_of_ones_own_that_would_train_is_told(tmp_path, change):
    text = (ROOT / "clusters" / "on-prem.yaml").read_text()
    assert "--num-cpus=0" in text
    path = tmp_path / "on-prem.yaml"
    path.write_text(text.replace("--num-cpus=0", change))
    told = any("without --num-cpus=0 the head would train" in line for line in problems(path))
    assert told == (change in ("", "--num-cpus=10"))


@pytest.mark.parametrize(
    ("text", "meant"), [(None, False), ("name: other tool", False), ("provider:\n  type: [", None), ("provider:", None)]
)
def test_a_cluster_file_is_of_ray_or_it_is_not_meant(tmp_path, text, meant):
    path = tmp_path / "cluster.yaml"
    if text is not None:
        path.write_text(text)
    with contextlib.nullcontext() if meant is not None else pytest.raises(UserError):
        assert is_meant(path) is meant
    assert not is_meant(ROOT / "cluster.yaml")  # it is to be filled in


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Ray leaves the file open
def test_no_search_begins_here_where_a_cluster_is_meant_that_is_not_up(cluster, capsys):
    cluster()
    assert run(["--trials", "1"]) == 2
    assert "cluster.yaml: it is filled in, but its head can't be reached" in capsys.readouterr().err
    assert not Path("results").exists()


def test_what_google_needs_is_told(tmp_path):
    config = yaml.safe_load((ROOT / "clusters" / "gcp.yaml").read_text())
    del config["provider"]["availability_zone"]
    machine = next(iter(config["available_node_types"].values()))["node_config"]
    machine["machinetype"] = machine.pop("machineType")
    path = tmp_path / "gcp.yaml"
    path.write_text(yaml.safe_dump(config))
    found = problems(path)
    assert any("provider.availability_zone is missing" in line for line in found)
    assert any("node_config takes no machinetype; did you mean machineType?" in line for line in found)
    config["provider"]["availability_zone"] = "us-west1-a"
    path.write_text(yaml.safe_dump(config))
    told = "gpu.node_config.disks: zones/us-west1-b/diskTypes/pd-balanced is not of the zone us-west1-a."
    assert any(told in line for line in problems(path))


@pytest.mark.parametrize("installed", [True, False])
def test_a_client_of_google_that_is_absent_is_told(tmp_path, monkeypatch, installed):
    monkeypatch.delitem(sys.modules, "googleapiclient", raising=False)
    if installed:
        (tmp_path / "googleapiclient.py").touch()
        monkeypatch.syspath_prepend(tmp_path)
    else:
        monkeypatch.setitem(sys.modules, "googleapiclient", None)
    told = any("pip install google-api-python-client" in line for line in problems(ROOT / "clusters" / "gcp.yaml"))
    assert told != installed


def test_credentials_that_are_not_valid_any_more_are_told(cluster, monkeypatch):
    path = cluster()
    monkeypatch.setattr("moto.settings.INITIAL_NO_AUTH_ACTION_COUNT", 0)  # from now on it checks them
    assert [line.split(": ", 1)[1] for line in problems(path)] == [
        "AWS: the access key is not known there; check your credentials."
    ]


@pytest.mark.parametrize(("text", "told"), [("", "no cluster file"), ("a: [", "unreadable"), (None, "no such file")])
def test_what_is_no_cluster_file_is_refused(tmp_path, text, told):
    path = tmp_path / "cluster.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=told):
        read_cluster(path)


@pytest.mark.parametrize("command", ["echo 'X'", 'echo "X"', "echo 'X' \"to\"", "X"])
@pytest.mark.parametrize("quote", ["", '"', "'", '\\"'])
def test_results_are_where_the_file_says(command, quote):
    assert results_of(read_cluster(ROOT / "cluster.yaml")) == "s3://YOUR-BUCKET/music-vae-sweep"
    command = command.replace("X", f"export SWEEP_RESULTS={quote}s3://b/x{quote}")
    assert results_of({"setup_commands": [f"{command} > ~/.sweep"]}) == "s3://b/x"
    assert results_of({"setup_commands": []}) is None
