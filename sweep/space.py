"""THE search space, define-by-run: which hyperparameters a trial draws, and which depend on which."""

from typing import Any

import optuna

from vae.config import FAMILY_NAMES, Config
from vae.encoding import DataSpec

BATCH_STEPS = (256, 512, 1024, 2048)


def fitting_families(spec: DataSpec) -> tuple[str, ...]:
    """The families that are worth proposing for some data: rows have no time to recur over."""
    return FAMILY_NAMES if spec.window > 1 else ("dense",)


def suggest(trial: optuna.trial.Trial, families: tuple[str, ...], window: int) -> dict[str, Any]:
    """Draws the params of a trial; names are those of `Config`, what is left out keeps its default.

    Args:
        trial: to draw for.
        families: to choose from.
        window: steps that share a code. A batch is drawn in time steps, so that an epoch has as many optimizer steps
            whatever the window.
    """
    family = trial.suggest_categorical("family", families)
    batch_steps = trial.suggest_categorical("batch_steps", BATCH_STEPS)
    batch = {"batch_size": max(1, batch_steps // window)}
    return {"family": family} | _SIZES[family](trial) | batch | _optimization(trial) | _objective(trial)


def _dense(trial: optuna.trial.Trial) -> dict[str, Any]:
    return {
        "dense_width": trial.suggest_int("dense_width", 64, 1024, log=True),
        "dense_depth": trial.suggest_int("dense_depth", 1, 4),
    }


def _recurrent(trial: optuna.trial.Trial) -> dict[str, Any]:
    return {
        "rnn_width": trial.suggest_int("rnn_width", 64, 512, log=True),
        "rnn_layers": trial.suggest_int("rnn_layers", 1, 2),
    }


_SIZES = {"dense": _dense, "recurrent": _recurrent}


def _optimization(trial: optuna.trial.Trial) -> dict[str, Any]:
    params = {
        "learning_rate": trial.suggest_float("learning_rate", 5e-4, 1e-2, log=True),
        "weight_decay": trial.suggest_float("weight_decay", 1e-6, 1e-1, log=True),
        "dropout": trial.suggest_float("dropout", 0.0, 0.4),
        "lr_warmup": trial.suggest_int("lr_warmup", 1, 100, log=True),
    }
    if trial.suggest_categorical("lr_schedule", ("constant", "cosine")) == "cosine":
        params["lr_decay"] = trial.suggest_int("lr_decay", 1000, 50_000, log=True)
    return params


def _objective(trial: optuna.trial.Trial) -> dict[str, Any]:
    params = {
        "latent_dim": trial.suggest_int("latent_dim", 4, 256, log=True),
        "free_bits": trial.suggest_float("free_bits", 0.0, 0.4),
    }
    if trial.suggest_categorical("beta_schedule", ("constant", "warmup")) == "warmup":
        params["beta_warmup"] = trial.suggest_int("beta_warmup", 50, 5000, log=True)
    return params


def first_points(families: tuple[str, ...]) -> list[dict[str, Any]]:
    """The defaults of each family, as draws to try first; with free bits, which keep the code alive."""
    default = Config()
    shared = {
        "learning_rate": default.learning_rate,
        "batch_steps": 1024,  # 64 windows of 16 steps
        "weight_decay": 1e-6,
        "dropout": default.dropout,
        "lr_warmup": 1,
        "lr_schedule": "constant",
        "latent_dim": default.latent_dim,
        "free_bits": 0.15,
        "beta_schedule": "constant",
    }
    sizes = {
        "dense": {"dense_width": default.dense_width, "dense_depth": default.dense_depth},
        "recurrent": {"rnn_width": 128, "rnn_layers": default.rnn_layers},
    }
    return [{"family": family, **sizes[family], **shared} for family in families]
