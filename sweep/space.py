"""THE search space, define-by-run: which hyperparameters a trial draws, and which depend on which."""

from dataclasses import asdict, dataclass
from typing import Any

import optuna

from vae.config import (
    FAMILY_NAMES,
    MOST_ATTENDED,
    MOST_HEAD_WIDTH,
    MOST_STEPS,
    Config,
    steps_as_wide,
    whole_bars,
    widest_dense,
)
from vae.encoding import DataSpec

BATCH_STEPS = (512, 1024, 2048)
CROPS, RECALLS = (256, 1024), (64, 128)
"""Shorter parts, or no attention to the past, teach a model nothing of what comes back later, which shows only long
after the first rungs: there such trials are ahead."""
_RATES = (1.1, 2.5)
"""What the KL is held at, in floors, which shall hold on music that nothing was chosen by, too; free bits hold it in
training, and on validation it comes out lower."""

_SHORTEST_RISE, _LONGEST_RISE = 50, 2000  # of beta, optimizer steps
_MOST_RATE = 100.0  # nats a time step; `Config` takes no more


@dataclass(frozen=True)
class Task:
    """What a space depends on."""

    families: tuple[str, ...]  # to choose from
    spec: DataSpec
    min_kl: float  # the floor, nats a time step
    horizon: int  # time steps that a trial is trained on at most


def fitting_families(spec: DataSpec) -> tuple[str, ...]:
    """The families that are worth proposing for some data.

    Rows have no time to recur over, and only music with a metre has bars.
    """
    if spec.window == 1:
        return ("dense",)
    bars = spec.steps_per_bar is not None and whole_bars(spec) >= 2 * spec.steps_per_bar
    return tuple(name for name in FAMILY_NAMES if name != "hierarchical" or bars)


def windows(family: str, spec: DataSpec) -> tuple[int, ...]:
    """The windows to choose from: the data's natural unit for dense layers; else four of them and whole songs too.

    Where each step has a code of its own, cuts cost context and give nothing: whole songs, see `crops`.
    """
    if family == "hierarchical":
        return (whole_bars(spec),)
    if family == "dense":
        return (Config.for_data(spec, {"family": family}).window,)
    if family == "sequential":
        return (min(spec.longest_song, MOST_STEPS),)
    longest = min(spec.longest_song, MOST_ATTENDED if family == "transformer" else MOST_STEPS)
    default = Config.for_data(spec, {"family": family}).window
    return tuple(sorted({min(spec.window, longest), min(4 * spec.window, longest), default, longest}))


def crops(spec: DataSpec) -> tuple[int, ...]:
    """The parts of songs that training shows at once, to choose from."""
    return tuple(sorted({min(steps, spec.longest_song) for steps in CROPS}))


def batches(spec: DataSpec) -> tuple[int, ...]:
    """The steps of a batch, to choose from."""
    return tuple(sorted({steps_as_wide(spec, steps) for steps in BATCH_STEPS}))


def suggest(trial: optuna.trial.Trial, task: Task) -> dict[str, Any]:
    """Draws the params of a trial; names are those of `Config`, what is left out keeps its default."""
    family = trial.suggest_categorical("family", task.families)
    batch_steps = trial.suggest_categorical("batch_steps", batches(task.spec))
    params = {"family": family, "batch_steps": batch_steps}
    choices = windows(family, task.spec)
    params |= _dense(trial, widest_dense(task.spec, choices[0])) if family == "dense" else _SIZES[family](trial)
    params["window"] = _choose(trial, f"{family}_window", choices)
    params |= {"crop": _choose(trial, "crop", crops(task.spec))} if family == "sequential" else {}
    params |= _head(trial) if task.spec.is_binary else {}
    params |= _regularisation(trial, family, task.spec)
    params |= _optimization(trial, task.horizon)
    return params | _code(trial, family, task)


def _choose(trial: optuna.trial.Trial, name: str, choices: tuple[int, ...]) -> int:
    """Draws one; what has no alternative is no dimension of the space."""
    chosen: int = trial.suggest_categorical(name, choices) if len(choices) > 1 else choices[0]
    return chosen


def _dense(trial: optuna.trial.Trial, widest: int) -> dict[str, Any]:
    return {
        "dense_width": trial.suggest_int("dense_width", min(64, widest), widest, log=True),
        "dense_depth": trial.suggest_int("dense_depth", 1, 4),
    }


def _lstm(trial: optuna.trial.Trial) -> dict[str, Any]:
    return {
        "rnn_width": trial.suggest_int("rnn_width", 96, 512, log=True),
        "encoder_width": trial.suggest_int("encoder_width", 16, 128, log=True),
    }


def _recalling(trial: optuna.trial.Trial) -> dict[str, Any]:
    return _lstm(trial) | {
        "rnn_layers": trial.suggest_int("rnn_layers", 1, 2),
        "recall_width": trial.suggest_categorical("recall_width", RECALLS),
        "weight_dropout": trial.suggest_float("weight_dropout", 0.0, 0.6),
    }


def _transformer(trial: optuna.trial.Trial) -> dict[str, Any]:
    return {
        "transformer_width": trial.suggest_int("transformer_width", 64, 256, step=32),
        "transformer_layers": trial.suggest_int("transformer_layers", 2, 6),
        "encoder_width": trial.suggest_int("encoder_width", 16, 128, log=True),
    }


_SIZES = {
    "recurrent": _recalling,
    "hierarchical": _lstm,
    "sequential": _recalling,
    "transformer": _transformer,
}


def _head(trial: optuna.trial.Trial) -> dict[str, Any]:
    return {
        "head_width": trial.suggest_int("head_width", 64, MOST_HEAD_WIDTH, log=True),
        "head_layers": trial.suggest_int("head_layers", 0, 2),
        "head_dropout": trial.suggest_float("head_dropout", 0.0, 0.5),
    }


def _regularisation(trial: optuna.trial.Trial, family: str, spec: DataSpec) -> dict[str, Any]:
    params: dict[str, Any] = {
        "dropout": trial.suggest_float("dropout", 0.0, 0.6),
        "weight_decay": trial.suggest_float("weight_decay", 1e-4, 1.0, log=True),
        "ema": trial.suggest_categorical("ema", (0.98, 0.995, 0.999)),
    }
    if family != "dense":
        params["input_dropout"] = trial.suggest_float("input_dropout", 0.0, 0.4)
        params["step_dropout"] = trial.suggest_float("step_dropout", 0.0, 0.2)
        params["encoder_dropout"] = trial.suggest_float("encoder_dropout", 0.0, 0.5)
    if spec.is_music:
        params["transpose"] = trial.suggest_int("transpose", 0, 6)
    return params


def _optimization(trial: optuna.trial.Trial, horizon: int) -> dict[str, Any]:
    params: dict[str, Any] = {
        "learning_rate": trial.suggest_float("learning_rate", 5e-4, 1e-2, log=True),
        "lr_warmup": trial.suggest_int("lr_warmup", 10, 300, log=True),
    }
    if trial.suggest_categorical("lr_schedule", ("cosine", "constant")) == "cosine":
        params["lr_decay"] = horizon
    return params


def stretched(params: dict[str, Any], horizon: int) -> dict[str, Any]:
    """Params for training on another number of time steps than they were drawn for: a cosine ends with those."""
    return params | {"lr_decay": horizon} if "lr_decay" in params else params


def _code(trial: optuna.trial.Trial, family: str, task: Task) -> dict[str, Any]:
    # Under a name of its own where the range is another: TPE knows one range a name, that which it met first.
    name, high = ("sequential_latent_dim", 64) if family == "sequential" else ("latent_dim", 256)
    params: dict[str, Any] = {"latent_dim": trial.suggest_int(name, 2, high, log=True), "rate_target": 0.0}
    control = "free_bits"  # of nothing, where there is no floor to hold
    if task.min_kl:
        rate = min(_MOST_RATE, round(task.min_kl * trial.suggest_float("rate", *_RATES), 6))
        control = trial.suggest_categorical("kl_control", ("free_bits", "rate_target"))
        params[control] = rate
    if control == "free_bits":
        schedule = trial.suggest_categorical("beta_schedule", ("constant", "warmup", "cyclical"))
        if schedule != "constant":
            params["beta_warmup"] = trial.suggest_int("beta_warmup", _SHORTEST_RISE, _longest_rise(task), log=True)
        if schedule == "cyclical":
            params["beta_cycle"] = 2 * params["beta_warmup"]
    return params


def _longest_rise(task: Task) -> int:
    """Of beta, in optimizer steps: half of those that the training has with the largest batches."""
    return min(_LONGEST_RISE, max(_SHORTEST_RISE, task.horizon // (2 * max(batches(task.spec)))))


_ORDER = ("sequential", "recurrent", "transformer", "dense", "hierarchical")


def first_points(task: Task) -> list[dict[str, Any]]:
    """The defaults of each family, as draws to try first; those that tend to win before the others.

    The first trials are the yardstick at every rung, and the only ones that are sure to pass them.
    """
    return [_defaults(family, task.spec) for family in _ORDER if family in task.families]


def _defaults(family: str, spec: DataSpec) -> dict[str, Any]:
    config = Config.for_data(spec, {"family": family})
    # Draws have the names of fields; what is no draw of this family is left aside.
    return asdict(config) | {
        f"{family}_window": config.window,
        "sequential_latent_dim": config.latent_dim,
        "lr_schedule": "cosine",
        "kl_control": "rate_target",
        "beta_schedule": "constant",
        "rate": 1.2,
    }
