"""What is wrong with the nodes of a cluster, seen before a sweep spends their time."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from sweep.cluster_file import own_cluster
from vae.checkpoint import versions
from vae.errors import UserError
from vae.store import Store

_SECONDS = 90.0
"""That a node may take to answer."""
_FILES, _DISK, _MEMORY = 4096, 5 * 2**30, 2 * 2**30
"""The least of open files, of free disk and of free memory, in bytes."""
_MONITOR = "/tmp/ray/session_latest/logs/monitor.log"


@dataclass(frozen=True)
class Facts:
    """What a node tells of itself."""

    host: str
    versions: dict[str, str]
    gpus: int  # that torch sees
    files: int
    disk: int
    memory: int
    sees_driver: bool  # what the driver wrote is there
    refused: str | None  # why it could not write results


def examine(place: str, mark: str) -> Facts:
    """Looks at this node.

    Args:
        place: where the sweep's results go.
        mark: a file that the driver has written there; the node writes another beside it.
    """
    import psutil

    sees_driver, refused = False, None
    try:
        store = Store(place, patience=0.0)
        sees_driver = store.read(f"{mark}/driver") is not None
        store.write(f"{mark}/{ray.get_runtime_context().get_node_id()}", b"")
    except UserError as error:
        refused = str(error)
    return Facts(
        socket.gethostname(),
        versions() | {"ray": ray.__version__},
        _gpus(),
        _open_files(),
        shutil.disk_usage(tempfile.gettempdir()).free,
        psutil.virtual_memory().available,
        sees_driver,
        refused,
    )


def _gpus() -> int:
    """That torch sees; in a process of its own, from which Ray hides none."""
    environment = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    program = "import sys, torch; sys.stdout.write(str(torch.cuda.device_count()))"
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    return int(done.stdout) if done.returncode == 0 else 0


def _open_files() -> int:
    import resource

    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def problems(place: str) -> list[str]:
    """What is wrong with the nodes that are there, a line each, with the way out.

    Args:
        place: where the sweep's results go.
    """
    mark = f".doctor/{uuid.uuid4().hex}"
    try:
        store = Store(place, patience=0.0)
        store.write(f"{mark}/driver", b"")
    except UserError as error:
        return [str(error)]
    nodes = [node for node in ray.nodes() if node["Alive"]]
    told = {node["NodeID"]: _ask(node["NodeID"], store.place, mark) for node in nodes}
    found: list[str] = []
    known: list[Facts] = []
    for node in nodes:
        try:
            known.append(ray.get(told[node["NodeID"]], timeout=_SECONDS))
        except (RayError, GetTimeoutError) as error:
            found.append(f"{node['NodeManagerHostname']}: does not answer ({str(error).splitlines()[0]:.100}).")
            continue
        written = store.read(f"{mark}/{node['NodeID']}") is not None
        found += _of_node(known[-1], node["Resources"], store.place, written)
    store.remove(mark)
    return found + _of_versions(known)


def _ask(node: str, place: str, mark: str) -> Any:
    where = NodeAffinitySchedulingStrategy(node, soft=False)
    return ray.remote(examine).options(num_cpus=0, scheduling_strategy=where).remote(place, mark)


def _of_node(facts: Facts, resources: dict[str, float], place: str, written: bool) -> list[str]:
    host, found = facts.host, []
    if facts.refused is not None:
        found.append(f"{host}: {facts.refused}")
    elif not (facts.sees_driver and written):
        found.append(
            f"{host}: {place} is not shared: what one node writes there, another does not find. Mount it on all "
            "of them, or pass --results s3://..."
        )
    if facts.gpus < resources.get("GPU", 0):
        found.append(
            f"{host}: torch sees {facts.gpus} of {resources['GPU']:g} GPUs; install a build of torch for its driver."
        )
    if facts.files < _FILES:
        found.append(f"{host}: may open {facts.files} files; `ulimit -n 65536` before `ray start`.")
    if facts.disk < _DISK:
        found.append(f"{host}: {facts.disk / 2**30:.1f} GiB of disk are free; checkpoints pass through it, make room.")
    if facts.memory < _MEMORY:
        found.append(f"{host}: {facts.memory / 2**30:.1f} GiB of memory are free; a trial takes up to 1.5.")
    return found


def _of_versions(facts: list[Facts]) -> list[str]:
    """Nodes that differ from most."""
    found = []
    for name in facts[0].versions if facts else ():
        count = Counter(fact.versions[name] for fact in facts)
        usual, _ = count.most_common(1)[0]
        found += [
            f"{fact.host}: {name} is {fact.versions[name]}, elsewhere {usual}; install the same."
            for fact in facts
            if fact.versions[name] != usual
        ]
    return found


def require_sound(place: str, force: bool, tell: Callable[[str], None]) -> None:
    """Refuses a cluster on which a sweep would fail.

    Args:
        place: where the sweep's results go.
        force: whether to tell of problems only.
        tell: is given each warning.

    Raises:
        UserError: there are problems.
    """
    found = problems(place)
    for line in (*warnings(), *(found if force else ())):
        tell(f"warning: {line}")
    if found and not force:
        ray.shutdown()
        more = f" (and {len(found) - 1} more: python -m sweep.doctor)" if len(found) > 1 else ""
        raise UserError(f"{found[0]}{more} --force begins all the same.")


def warnings() -> list[str]:
    """What a sweep can run with, but should not."""
    found = []
    if os.environ.get("RAY_AUTH_MODE") != "token":
        found.append("the cluster takes jobs from whoever reaches it: RAY_AUTH_MODE is not token; see docs/cluster.md.")
    url = str(ray._private.worker.global_worker.node.address_info.get("webui_url") or "")
    if url and not url.startswith(("127.0.0.1", "localhost")):
        found.append(f"the dashboard listens at {url}: --dashboard-host=127.0.0.1 on the head keeps it there.")
    return found + [
        f"{name}: is in the cluster file but has not joined; {_MONITOR} on the head says why, such as another version "
        "of Ray, no token, no way there."
        for name in absent()
    ]


def absent() -> list[str]:
    """Machines that have not joined, of those that the file of this cluster names."""
    return _absent(own_cluster(), {node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]})


def _absent(config: dict[str, Any] | None, there: set[str]) -> list[str]:
    named = None if config is None else config["provider"].get("worker_ips")
    return [name for name in named or () if not {name, _address(name)} & there]


def _address(name: str) -> str | None:
    try:
        return socket.gethostbyname(name)
    except OSError:
        return None
