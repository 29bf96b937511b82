"""How Ray Tune runs trials here: what each takes, warm actors, no pickles."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray import tune

from sweep.study import Settings
from sweep.trial import VaeTrial
from vae.corpus import Corpus


@dataclass(frozen=True)
class Resources:
    """What a trial takes, and how many run at a time."""

    per_trial: dict[str, float]
    slots: int
    where: str


def find_resources(trials_per_gpu: int, most: int | None) -> Resources:
    """GPUs shared by a few trials each; without GPUs a core a trial."""
    found = ray.cluster_resources()
    gpus, cores = int(found.get("GPU", 0)), max(1, int(found.get("CPU", 1)))
    slots = gpus * trials_per_gpu if gpus else cores
    share = {"cpu": min(1.0, cores / slots), "gpu": 1.0 / trials_per_gpu} if gpus else {"cpu": 1.0}
    if most is not None and most < slots:
        slots = most
        share["cpu"] = max(1.0, cores // most)  # so that Ray runs no more at a time
        share |= {"gpu": gpus / most} if gpus else {}
    machine = f"{cores} CPU core{'s' * (cores > 1)}, {gpus or 'no'} GPU{'s' * (gpus > 1)}"
    return Resources(share, slots, f"{machine}; {slots} trial{'s' * (slots > 1)} at a time")


def run_trials(
    corpus: Corpus,
    settings: Settings,
    resources: Resources,
    sessions: Path,
    folder_of: Callable[[dict[str, Any]], str],
    **parts: Any,
) -> None:
    """Runs Ray Tune until its searcher has no more trials.

    Args:
        corpus: the data.
        settings: of every trial.
        resources: of the machines.
        sessions: a folder in which each start has one of its own.
        folder_of: names the folder of a trial by its config.
        parts: of `tune.run`, such as `search_alg`, `scheduler`, `stop` and `callbacks`.
    """
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(resources.slots)
    trainable = tune.with_parameters(VaeTrial, corpus=corpus, settings=settings)
    # Not `Tuner`, which pickles all of this to restore it: here the study's journal does that, and no pickles.
    tune.run(
        tune.with_resources(trainable, resources.per_trial),
        num_samples=-1,
        reuse_actors=True,
        trial_dirname_creator=lambda trial: folder_of(trial.config),
        storage_path=str(sessions.resolve()),
        name=f"session-{len(list(sessions.glob('session-*')))}",
        verbose=0,
        raise_on_failed_trial=False,
        **parts,
    )
