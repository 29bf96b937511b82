"""Cluster files, as `ray up` reads them: what they say, and what is wrong with one before it costs anything."""

import contextlib
import difflib
import importlib.util
import io
import ipaddress
import os
import re
import stat
import subprocess
import uuid
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from vae.errors import UserError
from vae.store import Store, is_remote, reason

_RESULTS = re.compile(r"""SWEEP_RESULTS=\\?['"]?([^\s'"\\]+)""")  # quoted or not
_PROVIDERS = {
    "local": ("head_ip", "worker_ips", "external_head_ip", "coordinator_address"),
    "aws": (
        *("region", "availability_zone", "cache_stopped_nodes", "use_internal_ips", "key_pair", "security_group"),
        *("disable_launch_config_check", "aws_credentials", "cloudwatch"),
    ),
    "gcp": ("region", "availability_zone", "project_id", "cache_stopped_nodes", "use_internal_ips", "gcp_credentials"),
}
"""What a provider takes."""
_ANY_PROVIDER = ("type", "module", "disable_node_updaters", "use_external_head_ip")
_NEEDED = {"local": ("head_ip", "worker_ips"), "aws": ("region",), "gcp": ("region", "availability_zone", "project_id")}
_RAYS_OWN = "SubnetIds"  # beside what EC2 takes
_MACHINE_NEEDS = ("InstanceType", "ImageId")
_GOOGLES = (
    *("machineType", "disks", "networkInterfaces", "serviceAccounts", "scheduling", "guestAccelerators", "metadata"),
    *("labels", "tags", "minCpuPlatform", "canIpForward", "sourceMachineImage", "sourceInstanceTemplate", "hostname"),
    *("shieldedInstanceConfig", "confidentialInstanceConfig", "advancedMachineFeatures", "reservationAffinity"),
    *("resourcePolicies", "deletionProtection", "description", "params", "acceleratorType", "runtimeVersion"),
    *("acceleratorConfig", "networkConfig", "schedulingConfig"),
)
"""Of a machine at Google, or of its TPUs; the rest is for Google to say."""
_TYPES = {"string": str, "integer": int, "boolean": bool, "list": list, "structure": dict}
_DASHBOARD = re.compile(r"--dashboard-host[= ](?!127\.0\.0\.1|localhost)\S+")
_NO_CORES = re.compile(r"""--num-cpus[= ]['"]?0\b""")
_PLACEHOLDER = re.compile(r"YOUR-[A-Z-]+|ami-0{17}")
_TOKEN = "~/.ray/auth_token"
_BOOTSTRAP = Path("~/ray_bootstrap_config.yaml")


def read_cluster(path: Path) -> dict[str, Any]:
    """A cluster file.

    Raises:
        UserError: it is absent, or none.
    """
    try:
        config = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise UserError(f"--cluster {path}: no such file.") from None
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"--cluster {path}: unreadable ({' '.join(str(error).split()):.200}).") from None
    if not isinstance(config, dict) or not isinstance(config.get("provider"), dict):
        raise UserError(f"--cluster {path}: no cluster file, which has a provider; see cluster.yaml.")
    return config


def own_cluster() -> dict[str, Any] | None:
    """The file of the cluster whose head this machine is, as `ray up` leaves it for Ray's autoscaler, if it is one."""
    try:
        return read_cluster(_BOOTSTRAP.expanduser())
    except (UserError, RuntimeError):  # there is none, or no home folder
        return None


def results_of(config: dict[str, Any]) -> str | None:
    """Where a cluster file has sweeps written, by what it sets SWEEP_RESULTS to; None if it does not."""
    found = (_RESULTS.search(str(command)) for command in config.get("setup_commands") or ())
    return next((match[1] for match in found if match), None)


def problems(path: Path) -> list[str]:
    """What is wrong with a cluster file, or with what it needs on this machine; a line each, with the way out.

    Raises:
        UserError: it can't be read.
    """
    config = read_cluster(path)
    found = [*_of_ray(config)]
    with contextlib.suppress(AttributeError, TypeError) if found else contextlib.nullcontext():  # of what Ray refuses
        found += [*_of_provider(config), *_of_machines(config), *_left_as_they_were(config)]
        found += [*_of_head(config), *_of_access(config), *_of_mounts(config)]
    found += [] if found else _of_account(config)
    found += [] if found else _of_results(config)
    return [f"{path}: {line}" for line in found]


def _of_ray(config: dict[str, Any]) -> Iterator[str]:
    """What Ray's own validator says."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    try:
        with contextlib.redirect_stdout(io.StringIO()):
            validate_config(prepare_config(_completed(config)))
    except Exception as error:  # of many kinds
        where = ".".join(map(str, getattr(error, "absolute_path", ())))
        text = " ".join(str(getattr(error, "message", error)).split())
        yield f"Ray refuses {where or 'it'}: {text:.200}"


def _completed(config: dict[str, Any]) -> dict[str, Any]:
    """As `ray up` does before it asks its validator: for AWS it looks up what a kind of machine has."""
    kinds = config.get("available_node_types")
    if config["provider"].get("type") != "aws" or not isinstance(kinds, dict):
        return config
    known = {name: {"resources": {}, **kind} if isinstance(kind, dict) else kind for name, kind in kinds.items()}
    return config | {"available_node_types": known}


def _of_provider(config: dict[str, Any]) -> Iterator[str]:
    provider = config["provider"]
    kind = provider.get("type")
    if kind not in _PROVIDERS:
        yield f"provider.type must be one of {', '.join(_PROVIDERS)}, but is {kind!r}."
        return
    for name in _NEEDED[kind]:
        if not provider.get(name):
            yield f"provider.{name} is missing."
    if kind == "local" and not _is_address(provider.get("head_ip")):
        yield f"provider.head_ip must be an address, but is {provider['head_ip']!r}; for the head that may be itself."
    yield from _unknown("provider", provider, [*_ANY_PROVIDER, *_PROVIDERS[kind]])


def _is_address(head: Any) -> bool:
    """Or nothing, which is told elsewhere."""
    try:
        return not head or bool(ipaddress.ip_address(head))
    except ValueError:
        return False


def _kinds(config: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Of machines, by name."""
    return {name: kind or {} for name, kind in (config.get("available_node_types") or {}).items()}


def _of_machines(config: dict[str, Any]) -> Iterator[str]:
    """What machines can't be, of AWS and Google."""
    kind = config["provider"].get("type")
    if kind == "aws":
        yield from _of_aws_machines(config)
    elif kind == "gcp":
        yield from _of_google_machines(config)


def _of_google_machines(config: dict[str, Any]) -> Iterator[str]:
    if None in map(importlib.util.find_spec, ("googleapiclient", "cryptography")):
        yield "Google Cloud needs its client here: pip install google-api-python-client google-auth cryptography"
    zone = config["provider"].get("availability_zone")
    for name, kind in _kinds(config).items():
        machine = kind.get("node_config") or {}
        yield from _slips(f"{name}.node_config", machine, _GOOGLES)
        for place, elsewhere in re.findall(r"(zones/([^/]+)/diskTypes/[\w-]+)", str(machine.get("disks"))):
            if elsewhere != zone:
                yield f"{name}.node_config.disks: {place} is not of the zone {zone}."


def _slips(where: str, given: Iterable[str], known: Sequence[str]) -> Iterator[str]:
    """Words that are nearly known ones, where others may be as good."""
    for word in given:
        if word not in known and (meant := _meant(str(word), known)):
            yield f"{where} takes no {word}{meant}."


def _of_aws_machines(config: dict[str, Any]) -> Iterator[str]:
    """By AWS's client, which knows all that a machine takes."""
    try:
        from botocore.session import get_session
    except ImportError:
        yield "AWS needs boto3 here: pip install boto3"
        return
    session = get_session()
    yield from _of_region(config["provider"].get("region"), session)
    shape = session.get_service_model("ec2").operation_model("RunInstances").input_shape
    for name, kind in _kinds(config).items():
        machine = kind.get("node_config") or {}
        yield from _of_key(f"{name}.node_config", machine, config)
        yield from (
            f"{name}.node_config.{key} is missing; see cluster.yaml." for key in _MACHINE_NEEDS if not machine.get(key)
        )
        yield from _misfits(f"{name}.node_config", {key: machine[key] for key in machine if key != _RAYS_OWN}, shape)


def _of_region(region: str | None, session: Any) -> Iterator[str]:
    parts = session.get_available_partitions()
    known = [name for part in parts for name in session.get_available_regions("ec2", part)]
    yield from _unknown("provider.region", [region] if region else [], known)


def _of_key(where: str, machine: dict[str, Any], config: dict[str, Any]) -> Iterator[str]:
    """Of ssh: Ray makes a pair, whatever the machine says, unless the file has the private one."""
    private = "ssh_private_key" in (config.get("auth") or {})
    if "KeyName" in machine and not private:
        yield f"{where}.KeyName is not used without auth.ssh_private_key, the path of that key here."
    if private and not machine.keys() & {"KeyName", "UserData"}:
        yield f"{where}.KeyName is missing: the name at AWS of auth.ssh_private_key."


def _misfits(where: str, value: Any, shape: Any) -> Iterator[str]:
    """What AWS does not take: keys, types and words of a value, at any depth."""
    if _TYPES.get(shape.type_name) not in (None, type(value)):
        yield f"{where} must be of type {shape.type_name}, but is {value!r:.50}."
    elif shape.type_name == "list":
        for part in value:
            yield from _misfits(where, part, shape.member)
    elif shape.type_name == "structure":
        yield from _unknown(where, value, [*shape.members, _RAYS_OWN])
        for key in value.keys() & shape.members.keys():
            yield from _misfits(f"{where}.{key}", value[key], shape.members[key])
    elif words := getattr(shape, "enum", None):
        yield from _unknown(where, [value], words)


def _unknown(where: str, given: Iterable[str], known: Sequence[str]) -> Iterator[str]:
    for word in given:
        if word not in known:
            yield f"{where} takes no {word}{_meant(str(word), known)}."


def _meant(key: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.7)
    return f"; did you mean {near[0]}?" if near else ""


def is_filled_in(config: dict[str, Any]) -> bool:
    """Whether nothing is left in a cluster file that a user must replace."""
    return not any(_left_as_they_were(config))


def _left_as_they_were(config: dict[str, Any]) -> Iterator[str]:
    for word in dict.fromkeys(_PLACEHOLDER.findall(str(config))):
        yield f"{word} is to be replaced by yours."
    auth = config.get("auth")
    if isinstance(auth, dict) and auth.get("ssh_user") == "you":
        yield "auth.ssh_user is to be replaced by yours."


def _of_head(config: dict[str, Any]) -> Iterator[str]:
    """Whether it is left to the driver, and shows its dashboard to nobody else."""
    for public in _DASHBOARD.findall(str(config.get("head_start_ray_commands"))):
        yield f"head_start_ray_commands: {public} shows the dashboard to others; --dashboard-host=127.0.0.1 does not."
    if config["provider"].get("type") == "local" and not _NO_CORES.search(str(config.get("head_start_ray_commands"))):
        yield "head_start_ray_commands: without --num-cpus=0 the head would train; trials are for the workers."
    kinds, head = _kinds(config), str(config.get("head_node_type"))
    trains = (kinds.get(head, {}).get("resources") or {}).get("CPU") != 0
    if trains and any(_has_gpu(kinds[name]) for name in kinds if name != head):
        yield f"{head}.resources.CPU must be 0: trials are for the workers, which have GPUs."


def _has_gpu(kind: dict[str, Any]) -> bool:
    """Of machines; where AWS is to say what they have, by their type, such as g4dn or p4d."""
    if "resources" not in kind:
        return str((kind.get("node_config") or {}).get("InstanceType")).startswith(("g", "p"))
    return bool((kind["resources"] or {}).get("GPU"))


def _of_access(config: dict[str, Any]) -> Iterator[str]:
    key = (config.get("auth") or {}).get("ssh_private_key")
    if key is not None and not Path(key).expanduser().exists():
        yield f"auth.ssh_private_key {key} is not on this machine."
    elif key is not None and not _opens(Path(key).expanduser()):
        yield f"auth.ssh_private_key {key} is no key without a passphrase, which the head could not type."
    if "RAY_AUTH_MODE=token" not in str(config.get("setup_commands")):
        yield "without RAY_AUTH_MODE=token, whoever reaches a node can run commands there; see docs/cluster.md."
        return
    if _TOKEN not in (config.get("file_mounts") or {}):
        yield f"file_mounts lacks `{_TOKEN}: {_TOKEN}`, without which no worker can join."
    token = Path(_TOKEN).expanduser()
    if not token.exists():
        yield f"no token in {_TOKEN}: ray get-auth-token --generate && chmod 600 {_TOKEN}"
    elif stat.S_IMODE(token.stat().st_mode) & 0o077:
        yield f"others can read the token: chmod 600 {_TOKEN}"


def _opens(key: Path) -> bool:
    """Whether a private key needs no passphrase."""
    command = ["ssh-keygen", "-y", "-P", "", "-f", str(key)]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:  # no ssh here, then `ray up` tells
        return True


def _of_mounts(config: dict[str, Any]) -> Iterator[str]:
    """Links that lead nowhere, on which `ray up` fails once its head runs: it reads whatever it is to copy."""
    for target, mount in (config.get("file_mounts") or {}).items():
        if not isinstance(mount, str):
            yield f"file_mounts.{target} must be a path on this machine, but is {mount!r}."
            continue
        for folder, _, files in os.walk(Path(mount).expanduser()):
            for place in (Path(folder, name) for name in files):
                if not place.exists():
                    yield f"{place} is a link to nothing, which Ray can't copy; remove it."


def _of_account(config: dict[str, Any]) -> Iterator[str]:
    """Whether AWS knows who asks."""
    provider = config["provider"]
    if provider.get("type") != "aws":
        return
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        boto3.client("sts", provider["region"], **(provider.get("aws_credentials") or {})).get_caller_identity()
    except (BotoCoreError, ClientError) as error:
        yield f"AWS: {reason(error)}"


def _of_results(config: dict[str, Any]) -> Iterator[str]:
    """Whether the bucket is there, and credentials are good."""
    place = results_of(config)
    if place is None:
        yield "sets no SWEEP_RESULTS, where sweeps are written; see cluster.yaml."
    elif is_remote(place):
        mark = f".doctor/{uuid.uuid4().hex}"
        try:
            store = Store(place, patience=0.0)
            store.write(f"{mark}/laptop", b"")
            store.remove(mark)
        except UserError as error:
            yield str(error)
