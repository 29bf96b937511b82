"""Cluster files for hosts of the lab, made of the project's own."""

import csv
import shlex
import sys
from pathlib import Path
from typing import Any

import yaml
from lab import ROOT, Host, Lab
from sweeping import wait_for

SMALL_STORE = " --object-store-memory=200000000"
_ACCOUNT = {"ssh_user": "root", "ssh_private_key": "~/.ssh/lab.pem"}
_VENV = {"~/venv/bin": f"{sys.prefix}/bin"}
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


def prepare_on_prem(lab: Lab, store: str = SMALL_STORE) -> str:
    """The project on the laptop, and of `clusters/on-prem.yaml` a file for hosts `head`, `w1` and `w2`; its path there.

    What differs: addresses and the account; results in the lab's shared folder; the virtual environment is there, for
    nothing can be installed without a network; object stores are small, and a worker has two cores.
    """
    laptop = lab["laptop"]
    config = yaml.safe_load((ROOT / "clusters" / "on-prem.yaml").read_text())
    config["provider"] |= {"head_ip": lab["head"].address, "worker_ips": [lab[name].address for name in ("w1", "w2")]}
    config["auth"] = _ACCOUNT
    config["setup_commands"] = _setup(config, {"/mnt/shared/music-vae-sweep": str(lab.shared)})
    config["head_start_ray_commands"][-1] += store
    config["worker_start_ray_commands"][-1] += f"{store} --num-cpus=2"
    _make_at_home(laptop)
    (laptop.home / "on-prem.yaml").write_text(yaml.safe_dump(config))
    return "~/on-prem.yaml"


def up(laptop: Host, cluster: str) -> None:
    """Types `ray up`."""
    laptop.run(f"cd ~/music && ray up -y {cluster}", 240, RAY_UP_enable_autoscaler_v2="0")


def rows(lab: Lab, name: str) -> list[dict[str, str]]:
    """`trials.csv` of a sweep in the folder that the hosts share; none before there is one."""
    path = lab.shared / name / "trials.csv"
    return list(csv.DictReader(path.read_text().splitlines())) if path.exists() else []


def prepare_aws(lab: Lab, machines: int) -> Path:
    """The project on the laptop, with `cluster.yaml` for an AWS that is moto on the laptop; its folder there.

    What differs from the file: bucket, image, account and key; the network, which moto wants made; the way to moto;
    nothing is installed, for there is no network; object stores are small; GPUs are made up; so many machines at most,
    given back after half a minute.
    """
    laptop = lab["laptop"]
    exports = "".join(f"export {name}={value}\n" for name, value in AWS.items())
    (laptop.home / ".bashrc").write_text(exports)
    (laptop.home / "moto.log").touch()
    laptop.run("setsid moto_server -H 0.0.0.0 -p 5555 > ~/moto.log 2>&1 < /dev/null & disown")
    wait_for(lambda: "Running on" in (laptop.home / "moto.log").read_text())
    (laptop.home / "make_aws.py").write_text(_MAKE_AWS.replace("KEY", str(lab.folder / "key.pub")))
    subnet = laptop.run("python ~/make_aws.py").split()[-1]
    config = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    config |= {"idle_timeout_minutes": 0.5, "auth": _ACCOUNT}
    config["available_node_types"]["gpu"]["max_workers"] = machines
    config["provider"] |= {"use_internal_ips": True, "availability_zone": "us-west-2a"}
    for kind in config["available_node_types"].values():
        kind["node_config"] |= {"ImageId": "ami-12c6146b", "KeyName": "lab", "SubnetIds": [subnet]}
    config["setup_commands"] = _setup(config, {"YOUR-BUCKET": "music"})
    exports += "export SWEEP_MADE_UP_GPUS=1\n"
    config["setup_commands"].append(f"printf {shlex.quote(exports)} >> ~/.sweep")
    config["head_start_ray_commands"][-1] += SMALL_STORE
    config["worker_start_ray_commands"][-1] += SMALL_STORE
    _make_at_home(laptop)
    (laptop.home / "music" / "cluster.yaml").write_text(yaml.safe_dump(config))
    return laptop.home / "music"


def _make_at_home(laptop: Host) -> None:
    """Puts the project where a user has it, and makes a token."""
    laptop.run(f"rsync -a --exclude .venv --exclude .git --exclude results {ROOT}/ ~/music/")
    laptop.run("ray get-auth-token --generate && chmod 600 ~/.ray/auth_token")


def _setup(config: dict[str, Any], words: dict[str, str]) -> list[str]:
    """The setup commands but for what installs, with words replaced."""
    lines = [line for line in config["setup_commands"] if "pip install" not in line]
    for old, new in (words | _VENV).items():
        lines = [line.replace(old, new) for line in lines]
    return lines
