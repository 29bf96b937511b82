"""What is wrong with the nodes of a cluster, seen before a sweep spends their time."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError
from ray.tune import Callback
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from sweep.cluster_file import own_cluster
from vae.checkpoint import versions
from vae.errors import UserError
from vae.store import Store

_SECONDS = 90.0
"""That a node may take to answer."""
_LOOK_SECONDS = 5.0
"""How often to look for nodes that have joined."""
_WORKERLESS = 600.0
"""How long a sweep waits for a worker until it says so, in seconds, and how often it says so."""
_FILES, _DISK, _MEMORY = 4096, 5 * 2**30, 2 * 2**30
"""The least of open files, of free disk and of free memory, in bytes."""
_MONITOR = "/tmp/ray/session_latest/logs/monitor.log"
WHY_NO_WORKER = (
    f"`grep -i fail {_MONITOR} | tail -3` on the head says why, such as a quota of your account, or no spot "
    "machines to be had."
)
_COUNT = """
import torch

def computes(device):
    try:
        return bool(torch.ones(1, device=device) + 1 == 2)
    except RuntimeError:  # seen, but torch is not built for its kind
        return False

print(sum(computes(f"cuda:{i}") for i in range(torch.cuda.device_count())), torch.version.cuda or "")
"""


@dataclass(frozen=True)
class Facts:
    """What a node tells of itself."""

    host: str
    versions: dict[str, str]
    gpus: int  # on which torch can compute
    cuda: str  # that torch is built for; empty: none
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
        *_gpus(),
        _open_files(),
        shutil.disk_usage(tempfile.gettempdir()).free,
        psutil.virtual_memory().available,
        sees_driver,
        refused,
    )


def _gpus() -> tuple[int, str]:
    """On which torch can compute, in a process of its own, from which Ray hides none; and the CUDA it is built for."""
    environment = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    done = subprocess.run([sys.executable, "-c", _COUNT], env=environment, capture_output=True, text=True, check=False)
    gpus, _, cuda = done.stdout.strip().partition(" ")
    return (int(gpus), cuda) if done.returncode == 0 else (0, "")


def _open_files() -> int:
    import resource

    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


class Preflight:
    """Asks nodes once each: those that are there before a sweep begins, and those that join later.

    Args:
        place: where the sweep's results go.
    """

    def __init__(self, place: str) -> None:
        self._store, self._mark = Store(place, patience=0.0), f".doctor/{uuid.uuid4().hex}"
        self._seen: set[str] = set()
        self._asked: dict[Any, tuple[dict[str, Any], float]] = {}  # by the answer to come: node, and when
        self._known: list[Facts] = []
        self._found: list[str] = []
        self._told: set[str] = set()

    def problems(self, patience: float = _SECONDS) -> list[str]:
        """What is wrong with nodes that had not answered before, a line each, with the way out.

        Args:
            patience: seconds to wait for answers.

        Raises:
            UserError: results can't be written or read.
        """
        self._ask()
        if not self._asked:
            return []
        answers, _ = ray.wait(list(self._asked), num_returns=len(self._asked), timeout=patience)
        for answer in answers:
            self._found += self._read(answer, self._asked[answer][0])
            del self._asked[answer]
        self._found += self._silent()
        if not self._asked:
            self._store.remove(self._mark)
        new = [line for line in (*self._found, *_of_versions(self._known)) if line not in self._told]
        self._told.update(new)
        return new

    def _ask(self) -> None:
        """Asks those that have not been asked."""
        new = [node for node in ray.nodes() if node["Alive"] and node["NodeID"] not in self._seen]
        if new:
            self._store.write(f"{self._mark}/driver", b"")
        for node in new:
            where = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            task = ray.remote(examine).options(num_cpus=0, scheduling_strategy=where)
            self._asked[task.remote(self._store.place, self._mark)] = node, time.monotonic()
            self._seen.add(node["NodeID"])

    def _read(self, answer: Any, node: dict[str, Any]) -> list[str]:
        try:
            facts = ray.get(answer)
        except RayError as error:
            return [f"{node['NodeManagerHostname']}: does not answer ({str(error).splitlines()[0]:.100})."]
        written = self._store.read(f"{self._mark}/{node['NodeID']}") is not None
        self._known.append(facts)
        return _of_node(facts, node["Resources"], self._store.place, written)

    def _silent(self) -> list[str]:
        """Gives up those that were asked long ago."""
        late = [answer for answer, (_, asked) in self._asked.items() if time.monotonic() - asked > _SECONDS]
        hosts = [self._asked.pop(answer)[0]["NodeManagerHostname"] for answer in late]
        return [f"{host}: does not answer in {_SECONDS:.0f} s." for host in hosts]


class Newcomers(Callback):  # type: ignore[misc]  # ray ships incomplete types
    """Tells what is wrong with nodes that join while trials run, and if none does.

    Args:
        preflight: has asked the others.
        takes: what a trial takes, by Ray's names.
        tell: is given each warning.
    """

    def __init__(self, preflight: Preflight, takes: Iterable[str], tell: Callable[[str], None]) -> None:
        self._preflight, self._takes, self._tell = preflight, set(takes), tell
        self._looked = self._staffed = time.monotonic()

    def on_step_end(self, *args: Any, **info: Any) -> None:
        """Looks every few seconds."""
        del args, info
        if time.monotonic() - self._looked < _LOOK_SECONDS:
            return
        self._looked = time.monotonic()
        self._miss_workers()
        with contextlib.suppress(UserError):  # of a store that refuses for a while
            for line in self._preflight.problems(patience=0.0):
                self._tell(f"warning: {line}")

    def _miss_workers(self) -> None:
        if self._takes <= ray.cluster_resources().keys():
            self._staffed = self._looked
        elif self._looked - self._staffed > _WORKERLESS:
            self._staffed = self._looked
            kind = "GPU" if "GPU" in self._takes else "worker"
            self._tell(f"warning: no {kind} has been there for {_WORKERLESS / 60:.0f} minutes; {WHY_NO_WORKER}")


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
        build = f"for CUDA {facts.cuda}: update the driver, or" if facts.cuda else "without CUDA:"
        found.append(
            f"{host}: torch can compute on {facts.gpus} of {resources['GPU']:g} GPUs; it is built {build} install a "
            "build for the driver and the GPUs."
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


def require_sound(problems: list[str], doubts: list[str], force: bool, tell: Callable[[str], None]) -> None:
    """Refuses a cluster on which a sweep would fail.

    Args:
        problems: of its nodes.
        doubts: what is only told, see `warnings`.
        force: whether to tell of problems only.
        tell: is given each warning.

    Raises:
        UserError: there are problems.
    """
    for line in (*doubts, *(problems if force else ())):
        tell(f"warning: {line}")
    if problems and not force:
        more = f" (and {len(problems) - 1} more: python -m sweep.doctor)" if len(problems) > 1 else ""
        raise UserError(f"{problems[0]}{more} --force begins all the same.")


def warnings() -> list[str]:
    """What a sweep can run with, but should not."""
    dashboard = str(ray._private.worker.global_worker.node.address_info.get("webui_url") or "")
    return _open_doors(dashboard) + [
        f"{name}: is in the cluster file but has not joined; {_MONITOR} on the head says why, such as another version "
        "of Ray, no token, no way there, or a `ray up` without RAY_UP_enable_autoscaler_v2=0."
        for name in absent()
    ]


def _open_doors(dashboard: str) -> list[str]:
    """What lets others in: no token, or a dashboard that listens beyond the head. The address is empty without one."""
    found = []
    if os.environ.get("RAY_AUTH_MODE") != "token":
        found.append("the cluster takes jobs from whoever reaches it: RAY_AUTH_MODE is not token; see docs/cluster.md.")
    if dashboard and not dashboard.startswith(("127.0.0.1", "localhost")):
        found.append(f"the dashboard listens at {dashboard}: --dashboard-host=127.0.0.1 on the head keeps it there.")
    return found


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
