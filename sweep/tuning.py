"""How Ray Tune runs trials here: what each takes, warm actors, no pickles."""

import logging
import os
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ray
from ray import tune
from ray._private.utils import read_ray_address
from ray.autoscaler.sdk import request_resources

from sweep.checkpoints import Checkpoints
from sweep.cluster_file import own_cluster
from sweep.study import Settings
from sweep.trial import VaeTrial
from sweep.workers import outlive_lost_workers
from vae.corpus import Corpus
from vae.errors import UserError

LOCAL = "local"
"""The address of no cluster: this machine."""
_WORKERS_SECONDS = 600.0
"""How long a cluster may take to have its first worker."""
_QUIET = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # silences a warning on machines without GPUs
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # their files cost driver time; ours hold the same
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # `Stop` has its own, which loses nothing
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",  # the study's journal is what resumes, not Ray's snapshots
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_TRAIN_COUNT_PREEMPTION_AS_FAILURE": "1",  # else Ray itself retries these, for ever
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
}


def known_address(address: str | None) -> str | None:
    """Of the cluster that is asked for, or whose node this machine is; `local` or None: there is none."""
    found: str | None = address or os.environ.get("RAY_ADDRESS") or read_ray_address()
    return found


def joins_cluster(address: str | None) -> bool:
    """Whether a sweep runs on a cluster, and not by Ray on this machine alone."""
    return known_address(address) not in (None, LOCAL)


def start_ray(address: str | None) -> str:
    """Joins a cluster, or starts Ray on this machine; says which.

    Raises:
        UserError: the cluster does not answer.
    """
    os.environ |= _QUIET
    logging.getLogger("ray").setLevel(logging.CRITICAL)  # crashes are told by the view, in a line each
    address = known_address(address)
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    if address in (None, LOCAL):
        ray.init(address="local", include_dashboard=False, **quiet)
        return "this machine"
    try:
        ray.init(address=address, **quiet)
    except (ConnectionError, ValueError) as error:
        raise UserError(
            f"--address {address}: no Ray cluster there ({str(error).splitlines()[0]}); "
            f"start one with `ray start --head`, or pass --address {LOCAL} to search on this machine."
        ) from None
    return f"the Ray cluster at {address}"


@dataclass(frozen=True)
class Resources:
    """What a trial takes, and how many run at a time."""

    per_trial: dict[str, float]
    slots: int
    where: str
    most: int  # that the searcher hands out at a time


def find_resources(trials_per_gpu: int, most: int | None, joined: bool, wait: Callable[[str], None]) -> Resources:
    """GPUs shared by a few trials each; without GPUs a core a trial.

    Args:
        trials_per_gpu: that share one.
        most: trials at a time; None: all that fit.
        joined: whether this is a cluster, and not Ray on this machine alone.
        wait: told what is waited for, where a cluster has no workers yet.

    Raises:
        UserError: none came.
    """
    found = _await_workers(wait) if joined else ray.cluster_resources()
    gpus, cores = int(found.get("GPU", 0)), max(1, int(found.get("CPU", 1)))
    fit = gpus * trials_per_gpu if gpus else cores
    share = {"cpu": min(1.0, cores / fit), "gpu": 1.0 / trials_per_gpu} if gpus else {"cpu": 1.0}
    slots = fit if most is None else min(most, fit)
    machine = f"{cores} CPU core{'s' * (cores > 1)}, {gpus or 'no'} GPU{'s' * (gpus > 1)}"
    where = f"{machine}; {slots} trial{'s' * (slots > 1)} at a time"
    return Resources(share, slots, where, slots if slots < fit else slots + ahead(slots))


def ahead(slots: int) -> int:
    """Trials that are handed out before a slot is free, so that none waits for a proposal.

    The fewer, the more each proposal knows, and the sooner a trial that is promoted goes on.
    """
    return max(1, slots // 8)


def _await_workers(wait: Callable[[str], None]) -> dict[str, float]:
    """What the cluster has, or comes to have on demand; a head that runs no trials has no cores for them itself."""
    if promised := _promised():
        return promised
    deadline = time.monotonic() + _WORKERS_SECONDS
    found: dict[str, float] = ray.cluster_resources()
    if waiting := not found.get("CPU"):
        wait("waiting for workers to join the cluster")
        request_resources(num_cpus=1)
    while not found.get("CPU"):
        if time.monotonic() > deadline:
            raise UserError("no worker has joined the cluster; `ray status` on its head says why.")
        time.sleep(1.0)
        found = ray.cluster_resources()
    if waiting:
        request_resources(num_cpus=0)  # from now on the trials ask
    return found


def _promised() -> dict[str, float]:
    """What the cluster has once all of its workers have been started on demand; nothing is known if it starts none."""
    config = own_cluster()
    if config is None:
        return {}
    kinds = [kind for name, kind in config["available_node_types"].items() if name != config["head_node_type"]]
    total: Counter[str] = Counter()
    for kind in kinds:
        workers = min(kind.get("max_workers", 0), config["max_workers"])
        total.update({name: workers * kind["resources"].get(name, 0) for name in ("CPU", "GPU")})
    return dict(total) if total["CPU"] else {}


def run_trials(
    corpus: Corpus,
    settings: Settings,
    resources: Resources,
    sessions: Checkpoints,
    folder_of: Callable[[dict[str, Any]], str],
    trial: type[VaeTrial] = VaeTrial,
    **parts: Any,
) -> None:
    """Runs Ray Tune until its searcher has no more trials.

    Args:
        corpus: the data.
        settings: of every trial.
        resources: of the machines.
        sessions: where each start has a folder of its own.
        folder_of: names the folder of a trial by its config.
        trial: what trains it.
        parts: of `tune.run`, such as `search_alg`, `scheduler`, `stop` and `callbacks`.
    """
    outlive_lost_workers()
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(resources.slots)
    trainable = tune.with_parameters(trial, corpus=corpus, settings=settings)
    # Not `Tuner`, which pickles all of this to restore it: here the study's journal does that, and no pickles.
    tune.run(
        tune.with_resources(trainable, resources.per_trial),
        num_samples=-1,
        reuse_actors=True,
        trial_dirname_creator=lambda trial: folder_of(trial.config),
        storage_path=sessions.place,
        name=f"session-{len(sessions.sessions())}",
        verbose=0,
        raise_on_failed_trial=False,
        **parts,
    )
