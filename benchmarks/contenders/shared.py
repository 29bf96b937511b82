"""What the contenders share: the pinned space, the schedule, and the arguments."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna

from sweep import space
from vae.config import FAMILY_NAMES

MAX_EPOCHS = 27
GRACE_PERIOD = 1
REDUCTION_FACTOR = 3  # as in `sweep.scheduler`, which would bring Ray into the peer that has none
SLOTS = 2
SPACES = ("pinned", "real")
_COSTLY = ("dense_width", "dense_depth", "rnn_width", "rnn_layers", "latent_dim", "batch_size", "dropout")

Suggest = Callable[[optuna.Trial, tuple[str, ...], int], dict[str, Any]]
real_suggest: Suggest = space.suggest


def pins(family: str, window: int) -> dict[str, Any]:
    """The params of the family's first point, as far as they decide what an epoch costs."""
    drawn: Any = optuna.trial.FixedTrial(space.first_points((family,))[0])
    params = real_suggest(drawn, (family,), window)
    return {name: params[name] for name in _COSTLY if name in params}


def pinned_suggest(trial: optuna.Trial, families: tuple[str, ...], window: int) -> dict[str, Any]:
    """Draws from the whole space, so that the sampler has all its work, then replaces what an epoch's cost hangs on."""
    params = real_suggest(trial, families, window)
    return params | pins(params["family"], window)


def parse(contender: str, description: str | None) -> argparse.Namespace:
    """The arguments of a peer; `suggest` is the space it draws from."""
    parser = argparse.ArgumentParser(f"python -m benchmarks.contenders.{contender}", description=description)
    parser.add_argument("--data", type=Path, required=True, help="an .npz that save_corpus wrote")
    parser.add_argument("--folder", type=Path, required=True, help="for what the contender writes")
    parser.add_argument("--tally", type=Path, required=True, help="the figures, JSON")
    parser.add_argument("--space", choices=SPACES, required=True)
    parser.add_argument("--family", action="append", choices=FAMILY_NAMES, required=True)
    parser.add_argument("--window", type=int, required=True, help="time steps that share a code")
    parser.add_argument("--trials", type=int, required=True)
    parser.add_argument("--epoch-steps", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    args = parser.parse_args()
    args.suggest = pinned_suggest if args.space == "pinned" else real_suggest
    return args
