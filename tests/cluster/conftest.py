"""A lab of hosts, and clusters that `ray up` brings up in it."""

import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from lab import ROOT, Host, Lab, missing
from sweeping import wait_for

from benchmarks.common import made_songs

HOSTS = {"laptop": 1, "stranger": 2, "head": 10, "w1": 11, "w2": 12}
INSTANCES = {f"i{last}": last for last in range(4, 10)}
"""At the addresses that the stand-in for EC2 hands out, in their order; the first comes to be the head."""
SMALL_STORE = " --object-store-memory=200000000"


@pytest.fixture(scope="module")
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """All hosts, powered on; those that the module names."""
    if (reason := missing()) is not None:
        (pytest.fail if os.getenv("LAB") == "required" else pytest.skip)(reason)
    lab = Lab(getattr(request.module, "HOSTS", HOSTS))
    yield lab
    lab.close()


@pytest.fixture(scope="module")
def on_prem(lab: Lab) -> Iterator[str]:
    """The cluster of `clusters/on-prem.yaml`, up; its file on the laptop.

    What differs: addresses and the account; results in the lab's shared folder; the virtual environment is there, for
    nothing can be installed without a network; object stores are small, and a worker has two cores.
    """
    config = yaml.safe_load((ROOT / "clusters" / "on-prem.yaml").read_text())
    config["provider"] |= {"head_ip": lab["head"].address, "worker_ips": [lab[name].address for name in ("w1", "w2")]}
    config["auth"] = {"ssh_user": "root", "ssh_private_key": "~/.ssh/lab.pem"}
    replaced = {"/mnt/shared/music-vae-sweep": str(lab.shared), "~/venv/bin": f"{sys.prefix}/bin"}
    config["setup_commands"] = _replaced(
        [line for line in config["setup_commands"] if "pip install" not in line], replaced
    )
    config["head_start_ray_commands"][-1] += SMALL_STORE
    config["worker_start_ray_commands"][-1] += f"{SMALL_STORE} --num-cpus=2"
    laptop = lab["laptop"]
    _clone(laptop)
    (laptop.home / "on-prem.yaml").write_text(yaml.safe_dump(config))
    laptop.run("ray get-auth-token --generate && chmod 600 ~/.ray/auth_token")
    laptop.run("cd ~/music && ray up -y ~/on-prem.yaml", RAY_UP_enable_autoscaler_v2="0")
    yield "~/on-prem.yaml"
    laptop.run("cd ~/music && ray down -y ~/on-prem.yaml")


def _clone(laptop: Host) -> None:
    """Puts the project where a user has it."""
    laptop.run(f"rsync -a --exclude .venv --exclude .git --exclude results {ROOT}/ ~/music/")


def _replaced(lines: list[str], words: dict[str, str]) -> list[str]:
    for old, new in words.items():
        lines = [line.replace(old, new) for line in lines]
    return lines


@pytest.fixture(scope="module")
def music(lab: Lab) -> Path:
    """A piano-roll file on the laptop."""
    return made_songs(lab["laptop"].home / "chords.json", 300, 60)


AWS = {
    "AWS_ENDPOINT_URL": "http://10.77.0.1:5555",
    "AWS_ACCESS_KEY_ID": "made-up",
    "AWS_SECRET_ACCESS_KEY": "made-up",
    "AWS_DEFAULT_REGION": "us-west-2",
    "AWS_REGION": "us-west-2",
    "AWS_EC2_METADATA_DISABLED": "true",
}
_MAKE_AWS = """
import boto3, json, pathlib
ec2, iam = boto3.client("ec2"), boto3.client("iam")
vpc = ec2.create_vpc(CidrBlock="10.77.0.0/24")["Vpc"]["VpcId"]
subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.77.0.0/24", AvailabilityZone="us-west-2a")["Subnet"]["SubnetId"]
ec2.import_key_pair(KeyName="lab", PublicKeyMaterial=pathlib.Path("KEY").read_bytes())
for name in ("music-vae-head", "music-vae-worker"):
    iam.create_instance_profile(InstanceProfileName=name)
    iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps({"Statement": []}))
    iam.add_role_to_instance_profile(InstanceProfileName=name, RoleName=name)
boto3.client("s3").create_bucket(Bucket="music", CreateBucketConfiguration={"LocationConstraint": "us-west-2"})
print(subnet)
"""


@pytest.fixture(scope="module")
def aws(lab: Lab) -> Path:
    """The project on the laptop, with `cluster.yaml` for an AWS that is moto on the laptop; its folder there.

    What differs from the file: bucket, image, account and key; the network, which moto wants made; the way to moto;
    nothing is installed, for there is no network; object stores are small; two machines at most, given back after half
    a minute.
    """
    laptop = lab["laptop"]
    _clone(laptop)
    exports = "".join(f"export {name}={value}\n" for name, value in AWS.items())
    (laptop.home / ".bashrc").write_text(exports)
    (laptop.home / "moto.log").touch()
    laptop.run("setsid moto_server -H 0.0.0.0 -p 5555 > ~/moto.log 2>&1 < /dev/null & disown")
    wait_for(lambda: "Running on" in (laptop.home / "moto.log").read_text())
    (laptop.home / "make_aws.py").write_text(_MAKE_AWS.replace("KEY", str(lab.folder / "key.pub")))
    subnet = laptop.run("python ~/make_aws.py").split()[-1]
    config = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    config |= {"idle_timeout_minutes": 0.5, "auth": {"ssh_user": "root", "ssh_private_key": "~/.ssh/lab.pem"}}
    config["available_node_types"]["gpu"]["max_workers"] = 2
    config["provider"] |= {"use_internal_ips": True, "availability_zone": "us-west-2a"}
    for kind in config["available_node_types"].values():
        kind["node_config"] |= {"ImageId": "ami-12c6146b", "KeyName": "lab", "SubnetIds": [subnet]}
    kept = [line for line in config["setup_commands"] if "pip install" not in line]
    config["setup_commands"] = _replaced(kept, {"YOUR-BUCKET": "music", "~/venv/bin": f"{sys.prefix}/bin"})
    config["setup_commands"].append(f"printf {shlex.quote(exports)} >> ~/.sweep")
    config["head_start_ray_commands"][-1] += SMALL_STORE
    config["worker_start_ray_commands"][-1] += SMALL_STORE
    (laptop.home / "music" / "cluster.yaml").write_text(yaml.safe_dump(config))
    laptop.run("ray get-auth-token --generate && chmod 600 ~/.ray/auth_token")
    return laptop.home / "music"
