"""How Ray Tune runs trials here: what each takes, warm actors, no pickles."""

import json
import logging
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import ray
from ray import tune
from ray._private.utils import read_ray_address
from ray.autoscaler.sdk import request_resources
from ray.exceptions import AuthenticationError
from ray.tune import TuneError

from sweep.checkpoints import Checkpoints
from sweep.cluster_file import own_cluster
from sweep.nodes import WHY_NO_WORKER, absent
from sweep.settings import Settings
from sweep.trial import VaeTrial
from sweep.workers import mind_workers
from vae.corpus import Corpus
from vae.device import default_device
from vae.errors import UserError
from vae.files import nowhere

LOCAL = "local"
"""The address of no cluster: this machine."""
_WORKERS_SECONDS = 1800.0
"""How long a cluster may take to have its first worker."""
_NAMED_SECONDS = 30.0
"""How long, once it has, those that its file names may take."""
_LOOK_SECONDS = 1.0
"""How often to see which machines a cluster has."""
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
    """Of the cluster that is asked for, or whose node this machine is; `local` or None: there is none.

    Raises:
        UserError: it is of another kind, for clusters that the machine is not in.
    """
    found: str | None = address or os.environ.get("RAY_ADDRESS") or read_ray_address()
    if "://" in (found or ""):
        said = f"--address {found}" if address else f"RAY_ADDRESS={found}"
        raise UserError(f"{said}: must be auto, local or HOST:PORT of a cluster that this machine is in.")
    return found


def joins_cluster(address: str | None) -> bool:
    """Whether a sweep runs on a cluster, and not by Ray on this machine alone."""
    return known_address(address) not in (None, LOCAL)


def start_ray(address: str | None) -> str:
    """Joins a cluster, or starts Ray on this machine; says which.

    Raises:
        UserError: the cluster does not answer, or does not let this process in.
    """
    os.environ |= _QUIET
    logging.getLogger("ray").setLevel(logging.CRITICAL)  # crashes are told by the view, in a line each
    address = known_address(address)
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    if address in (None, LOCAL):
        gpus = 0 if default_device().type == "cpu" else None  # else Ray counts those too that torch can't use
        ray.init(address="local", include_dashboard=False, num_gpus=gpus, **quiet)
        return "this machine"
    try:
        sys.stderr.flush()
        with nowhere(2):  # Ray's parts in C++ have no level of logs yet
            ray.init(address=address, **quiet)
    except (ConnectionError, ValueError, RuntimeError, AuthenticationError) as error:
        ray.shutdown()
        raise UserError(f"--address {address}: {_why_out(error)}") from None
    return f"the Ray cluster at {address}"


def _why_out(error: Exception) -> str:
    """Why a cluster could not be joined, and what to do."""
    text = " ".join(str(error).split())
    if isinstance(error, AuthenticationError) or AuthenticationError.__name__ in str(error.__cause__):
        return (
            "that Ray cluster asks for another token than this account has, or has none; copy ~/.ray/auth_token from "
            "its head, `chmod 600` it and set RAY_AUTH_MODE=token."
        )
    if isinstance(error, RuntimeError):
        return f"{text}; install what the cluster has."
    return (
        f"no Ray cluster there ({text}); start one with `ray start --head`, or pass --address {LOCAL} to search on "
        "this machine."
    )


class Resources:
    """What a trial takes, and how many run at a time: GPUs shared by a few trials each; without GPUs a core a trial.

    Args:
        found: what the machines have, by Ray's names.
        trials_per_gpu: that share one.
        limit: trials at a time at most; None: all that fit.
        tell: told when machines have joined or left, where they may; None: they stay as they are.
        promised: whether the machines start when trials ask for them, and fewer may be there.
    """

    def __init__(
        self,
        found: Mapping[str, float],
        trials_per_gpu: int,
        limit: int | None = None,
        tell: Callable[[str], None] | None = None,
        promised: bool = False,
    ) -> None:
        self._trials_per_gpu, self._limit, self._tell = trials_per_gpu, limit or sys.maxsize, tell
        self._found, self._looked, self._promised = found, time.monotonic(), promised
        self._gpus = int(found.get("GPU", 0)) > 0
        share = {"cpu": min(1.0, found.get("CPU", 1.0) / self._fit(found)), "gpu": 1.0 / trials_per_gpu}
        self.per_trial = share if self._gpus else {"cpu": 1.0}
        self.peak = 1 if promised else self.slots

    def _fit(self, found: Mapping[str, float]) -> int:
        if self._gpus:
            return int(found.get("GPU", 0)) * self._trials_per_gpu
        return max(1, int(found.get("CPU", 1)))

    @property
    def slots(self) -> int:
        """Trials that run at a time; `peak` is the most there were."""
        return min(self._limit, self._fit(self._found))

    def most(self) -> int:
        """Trials that the searcher hands out at a time, by the machines that are there now."""
        if (self._promised or self._tell is not None) and time.monotonic() - self._looked > _LOOK_SECONDS:
            self._look()
        return self.slots if self.slots < self._fit(self._found) else self.slots + ahead(self.slots)

    def _look(self) -> None:
        there, self._looked = ray.cluster_resources(), time.monotonic()
        self.peak = max(self.peak, min(self._limit, self._fit(there)))
        if self._tell is not None:
            self._follow(there, self._tell)

    def _follow(self, there: Mapping[str, float], tell: Callable[[str], None]) -> None:
        before, had = self.slots, self._found.get("GPU", 0)
        self._found = there
        if self.slots != before:
            tell(f"the cluster has {self} now")
        if self._found.get("GPU", 0) > had and not self._gpus:
            tell("a GPU has joined a sweep that began without: it trains on processors; stopped, --resume uses GPUs")

    def __str__(self) -> str:
        cores, gpus = max(1, int(self._found.get("CPU", 1))), int(self._found.get("GPU", 0))
        machine = f"{cores} CPU core{'s' * (cores > 1)}, {gpus or 'no'} GPU{'s' * (gpus > 1)}"
        return f"{machine}; {self.slots} trial{'s' * (self.slots > 1)} at a time"


def find_resources(trials_per_gpu: int, limit: int | None, joined: bool, tell: Callable[[str], None]) -> Resources:
    """Of this machine, or of the cluster, as soon as it has a worker.

    Args:
        trials_per_gpu: that share one.
        limit: trials at a time at most; None: all that fit.
        joined: whether this is a cluster, and not Ray on this machine alone.
        tell: told what is waited for, and when machines have joined or left.

    Raises:
        UserError: none came.
    """
    if not joined:
        return Resources(ray.cluster_resources(), trials_per_gpu, limit)
    if promised := _promised():
        if not _has_cores():
            tell("machines start when trials ask for them; the first takes some minutes")
        return Resources(promised, trials_per_gpu, limit, promised=True)
    return Resources(_await_workers(tell), trials_per_gpu, limit, tell)


def ahead(slots: int) -> int:
    """Trials that are handed out before a slot is free, so that none waits for a proposal.

    The fewer, the more each proposal knows, and the sooner a trial that is promoted goes on.
    """
    return max(1, slots // 8)


def _await_workers(tell: Callable[[str], None]) -> dict[str, float]:
    """What the cluster has once it has a worker, and those that its file names, unless they take too long.

    A head that runs no trials has no cores for them itself.
    """
    if not _has_cores():
        tell(f"waiting up to {_WORKERS_SECONDS / 60:.0f} min for workers to join the cluster")
        request_resources(num_cpus=1)
        try:
            if not _comes_true(_has_cores, _WORKERS_SECONDS):
                raise UserError(f"no worker has joined the cluster; {WHY_NO_WORKER}")
        finally:
            request_resources(num_cpus=0)  # from now on the trials ask
    if names := absent():
        tell(f"waiting up to {_NAMED_SECONDS:.0f} s for {', '.join(names)} of the cluster file, which may have GPUs")
        _comes_true(lambda: not absent(), _NAMED_SECONDS)
    return dict(ray.cluster_resources())


def _has_cores() -> bool:
    return bool(ray.cluster_resources().get("CPU"))


def _comes_true(condition: Callable[[], bool], seconds: float) -> bool:
    """Waits for a condition; whether it holds in the end."""
    deadline = time.monotonic() + seconds
    while not (true := condition()) and time.monotonic() < deadline:
        time.sleep(1.0)
    return true


def _promised() -> dict[str, float]:
    """What the cluster has once all of its workers have been started on demand; nothing is known if it starts none."""
    config = own_cluster()
    if config is None:
        return {}
    kinds = [kind for name, kind in config["available_node_types"].items() if name != config["head_node_type"]]
    total: Counter[str] = Counter()
    left = config.get("max_workers", 0)
    for kind in sorted(kinds, key=lambda kind: kind["resources"].get("GPU", 0), reverse=True):
        workers = min(kind.get("max_workers", 0), left)
        left -= workers
        total.update({name: workers * kind["resources"].get(name, 0) for name in ("CPU", "GPU")})
    return dict(total) if total["CPU"] else {}


def may_be_taken_back() -> bool:
    """Whether a market may take machines of this cluster back, by its file. Ray does not tell it from their death."""
    config = own_cluster() or {"available_node_types": {}}
    terms = json.dumps([kind.get("node_config") for kind in config["available_node_types"].values()]).lower()
    return '"spot"' in terms or '"preemptible": true' in terms


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

    Raises:
        OSError, UserError: as the parts do, such as of a disk that can't be written.
    """
    mind_workers()
    # No bound: Ray reads it once, at the beginning. What waits is bounded by `Resources.most`, through the searcher.
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(sys.maxsize)
    trainable = tune.with_parameters(trial, corpus=corpus, settings=settings)
    # Not `Tuner`, which pickles all of this to restore it: here the study's journal does that, and no pickles.
    try:
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
    except TuneError as error:  # Ray's, for whatever a callback, the searcher or the scheduler raises
        cause: BaseException | None = error
        while isinstance(cause, TuneError):
            cause = cause.__context__
        raise cause or error from None
