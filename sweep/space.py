"""THE search space, define-by-run: which hyperparameters a trial draws, and which depend on which."""

from typing import Any

import optuna

from vae.config import FAMILY_NAMES, Config


def suggest(trial: optuna.trial.Trial, families: tuple[str, ...] = FAMILY_NAMES) -> dict[str, Any]:
    """Draws the params of a trial; names are those of `Config`, what is left out keeps its default."""
    family = trial.suggest_categorical("family", families)
    return {"family": family} | _SIZES[family](trial) | _optimization(trial) | _objective(trial)


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
        "learning_rate": trial.suggest_float("learning_rate", 3e-4, 1e-2, log=True),
        "batch_size": trial.suggest_categorical("batch_size", (8, 16, 32, 64)),
        "weight_decay": trial.suggest_float("weight_decay", 1e-6, 1e-1, log=True),
        "dropout": trial.suggest_float("dropout", 0.0, 0.4),
        "lr_warmup": trial.suggest_int("lr_warmup", 1, 300, log=True),
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
        "batch_size": default.batch_size,
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
