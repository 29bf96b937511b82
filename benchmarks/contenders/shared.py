"""What the contenders share: the pinned space, the schedule, what a sweep would have, and the arguments."""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna

from sweep import space
from sweep.settings import Settings
from vae.config import FAMILY_NAMES, kl_as_wide
from vae.corpus import load_corpus
from vae.encoding import DataSpec
from vae.trainer import MAX_EPOCHS, MIN_KL

GRACE_PERIOD = 1
SLOTS = 2
SPACES = ("pinned", "real")
_COSTLY = (
    *("dense_width", "dense_depth", "rnn_width", "rnn_layers", "recall_width", "encoder_width", "latent_dim"),
    *("transformer_width", "transformer_layers", "head_width", "head_layers", "window", "batch_steps", "transpose"),
    *("dropout", "head_dropout", "input_dropout", "step_dropout", "encoder_dropout", "weight_dropout"),
)

Suggest = Callable[[optuna.Trial, space.Task], dict[str, Any]]
real_suggest: Suggest = space.suggest


def settings_of(spec: DataSpec, epoch_steps: int, families: Sequence[str] = ()) -> Settings:
    """What `sweep.run` would have on some data, all else at its defaults; its task is what the space depends on.

    Args:
        spec: of the data.
        epoch_steps: of an epoch.
        families: to search; none: those that fit the data.
    """
    return Settings(
        name="made",
        data="made",
        spec=spec,
        fingerprint="",
        families=tuple(families) or space.fitting_families(spec),
        max_epochs=MAX_EPOCHS,
        epoch_steps=epoch_steps,
        seed=0,
        min_kl=kl_as_wide(spec, MIN_KL),
    )


def pins(family: str, task: space.Task) -> dict[str, Any]:
    """The params of the family's first point, as far as they decide what an epoch costs."""
    alone = replace(task, families=(family,))
    drawn: Any = optuna.trial.FixedTrial(space.first_points(alone)[0])
    params = real_suggest(drawn, alone)
    return {name: params[name] for name in _COSTLY if name in params}


def pinned_suggest(trial: optuna.Trial, task: space.Task) -> dict[str, Any]:
    """Draws from the whole space, so that the sampler has all its work, then replaces what an epoch's cost hangs on."""
    params = real_suggest(trial, task)
    return params | pins(params["family"], task)


def parse(contender: str, description: str | None) -> argparse.Namespace:
    """The arguments of a peer; `suggest` is the space it draws from, `task` what that depends on."""
    parser = argparse.ArgumentParser(f"python -m benchmarks.contenders.{contender}", description=description)
    parser.add_argument("--data", type=Path, required=True, help="an .npz that save_corpus wrote")
    parser.add_argument("--folder", type=Path, required=True, help="for what the contender writes")
    parser.add_argument("--tally", type=Path, required=True, help="the figures, JSON")
    parser.add_argument("--space", choices=SPACES, required=True)
    parser.add_argument("--family", action="append", choices=FAMILY_NAMES, required=True)
    parser.add_argument("--trials", type=int, required=True)
    parser.add_argument("--epoch-steps", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    args = parser.parse_args()
    args.suggest = pinned_suggest if args.space == "pinned" else real_suggest
    args.task = settings_of(load_corpus(str(args.data)).spec, args.epoch_steps, args.family).task
    return args
