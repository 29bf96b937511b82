"""Config: every hyperparameter, its default, unit and range."""

import dataclasses
import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from vae.encoding import DataSpec, music_steps
from vae.errors import UserError

FAMILY_NAMES = ("dense", "recurrent", "hierarchical", "sequential", "transformer")
HEAD_NAMES = ("independent", "autoregressive")


def _number(default: float, low: float, high: float, unit: str) -> Any:
    """A hyperparameter that must lie in [low, high]; its type is that of the default."""
    return dataclasses.field(default=default, metadata={"low": low, "high": high, "unit": unit})


def _choice(default: str, names: tuple[str, ...], unit: str) -> Any:
    """A hyperparameter that is one of some words."""
    return dataclasses.field(default=default, metadata={"names": names, "unit": unit})


@dataclass(frozen=True)
class Config:
    """Hyperparameters of one model and its training.

    Those that depend on the family or on the data have their defaults in `for_data`. The seed's VAE is `dense` with its
    sizes here, `head=independent`, and neither dropout, transposition, average nor rate target.

    Raises:
        UserError: a value lies outside its range.
    """

    family: str = _choice("dense", FAMILY_NAMES, "of models")
    window: int = _number(16, 1, 100_000, "time steps that are scored together; the longest song's: whole songs")
    crop: int = _number(256, 1, 100_000, "steps of a window that training shows at once, at most; sequential")
    latent_dim: int = _number(100, 1, 4096, "dimensions of the code")
    head: str = _choice("independent", HEAD_NAMES, "whether the keys of a step depend on each other")
    head_width: int = _number(256, 1, 16384, "units of the autoregressive head")
    head_layers: int = _number(1, 0, 16, "residual layers of the autoregressive head")
    head_dropout: float = _number(0.2, 0.0, 0.95, "share of the autoregressive head's units dropped in training")
    dense_width: int = _number(256, 1, 16384, "units of the outer hidden layers; inner ones have twice as many")
    dense_depth: int = _number(3, 1, 16, "hidden layers of the encoder, and of the decoder")
    rnn_width: int = _number(256, 1, 16384, "hidden units of each LSTM of the decoder")
    rnn_layers: int = _number(1, 1, 16, "layers of the decoder's LSTM; recurrent, sequential")
    recall_width: int = _number(
        128, 0, 4096, "units of the attention to the past, even; 0: none; recurrent, sequential"
    )
    transformer_width: int = _number(128, 2, 16384, "units of a layer")
    transformer_layers: int = _number(4, 1, 64, "layers")
    transformer_heads: int = _number(4, 1, 64, "heads of attention; the width is a multiple of twice as many")
    encoder_width: int = _number(64, 1, 16384, "units of the encoder, each way; all families but dense")
    encoder_dropout: float = _number(0.0, 0.0, 0.95, "share of what the encoder sees and makes dropped in training")
    dropout: float = _number(0.0, 0.0, 0.95, "share of hidden units dropped in training")
    weight_dropout: float = _number(
        0.0, 0.0, 0.95, "share of the weights dropped in training that lead from a state to the next; as rnn_layers"
    )
    input_dropout: float = _number(0.0, 0.0, 0.95, "share of the units dropped that the decoder reads steps into")
    step_dropout: float = _number(0.0, 0.0, 1.0, "share of earlier steps that the decoder does not see in training")
    transpose: int = _number(0, 0, 12, "semitones up and down by which training music is moved at random")
    batch_steps: int = _number(1024, 1, 10**7, "time steps in a batch, about; one window at least")
    learning_rate: float = _number(1e-3, 1e-8, 10.0, "AdamW step size at its peak")
    lr_warmup: int = _number(30, 0, 10**9, "optimizer steps of linear rise")
    lr_decay: int = _number(0, 0, 10**12, "time steps of training over which it falls as a cosine; 0: it does not")
    lr_final: float = _number(0.02, 0.0, 1.0, "share of the peak that the fall ends at")
    weight_decay: float = _number(0.01, 0.0, 10.0, "AdamW's, on matrices only")
    grad_clip: float = _number(1.0, 1e-6, 1e9, "largest norm of the gradient")
    ema: float = _number(0.995, 0.0, 0.99999, "decay a step of the weights' average, which is evaluated; 0: none")
    beta: float = _number(1.0, 0.0, 100.0, "weight of the KL in training once warmed up")
    beta_warmup: int = _number(0, 0, 10**9, "optimizer steps of linear rise of beta from 0")
    beta_cycle: int = _number(0, 0, 10**9, "optimizer steps after which the rise begins again; 0: never")
    free_bits: float = _number(0.0, 0.0, 100.0, "nats a time step of KL that cost nothing in training")
    rate_target: float = _number(
        0.12, 0.0, 100.0, "KL on validation, nats a time step, that beta is steered to hold; free below; 0: not"
    )

    def __post_init__(self) -> None:
        """Refuses values that can't work, alone or together."""
        for field in dataclasses.fields(self):
            self._check(field)
        if self.transformer_width % (2 * self.transformer_heads):
            raise UserError(
                f"transformer_width must be a multiple of twice transformer_heads, but got {self.transformer_width} "
                f"and {self.transformer_heads}."
            )
        if self.recall_width % 2:
            raise UserError(f"recall_width must be even, but got {self.recall_width}.")
        if self.rate_target and (self.free_bits or self.beta_warmup):
            raise UserError(
                f"rate_target steers beta, so free_bits and beta_warmup must be 0, but got {self.free_bits:g} and "
                f"{self.beta_warmup}."
            )
        if self.beta_cycle and not 0 < self.beta_warmup <= self.beta_cycle:
            raise UserError(
                f"beta_cycle repeats beta_warmup, which must lie in 1..{self.beta_cycle}, but got {self.beta_warmup}."
            )

    def _check(self, field: "dataclasses.Field[Any]") -> None:
        value = getattr(self, field.name)
        if names := field.metadata.get("names"):
            if value not in names:
                raise UserError(f"{field.name} must be one of {', '.join(names)}, but got {value!r}.")
            return
        low, high = field.metadata["low"], field.metadata["high"]
        kind = type(field.default)
        if isinstance(value, bool) or not isinstance(value, int | float if kind is float else int):
            raise UserError(f"{field.name} must be {_KIND[kind]}, but got {value!r}.")
        if not low <= value <= high:  # NaN fails every comparison, so it is refused too
            raise UserError(
                f"{field.name} must lie in {low:g}..{high:g} ({field.metadata['unit']}), but got {value!r}."
            )

    @classmethod
    def for_data(cls, spec: DataSpec, params: Mapping[str, Any], horizon: int = 0) -> Self:
        """Builds a config for one corpus, with the defaults of its family.

        Args:
            spec: the data.
            params: values by name; `free_bits` or `beta_warmup` take the place of the default `rate_target`.
            horizon: time steps of training in all, over which the learning rate falls; 0: it does not.

        Raises:
            UserError: an unknown name, a value out of range, or what `check_fit` refuses.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        for name in params:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}."
                raise UserError(f"unknown hyperparameter {name!r}; {hint}")
        defaults = _defaults(spec, params.get("family", cls.family))
        if params.get("free_bits") or params.get("beta_warmup"):
            defaults["rate_target"] = 0.0
        config = cls(**{**defaults, "lr_decay": horizon, **params})
        config.check_fit(spec)
        return config

    @property
    def shown(self) -> int:
        """Steps of a window that training shows at once.

        Where each step has its own code, those are parts of a long song, many at once: it is scored as a whole still.
        """
        return min(self.window, self.crop) if self.family == "sequential" else self.window

    def check_fit(self, spec: DataSpec) -> None:
        """Refuses what can't work on some data.

        Raises:
            UserError: naming the fields.
        """
        if self.window > spec.longest_song:
            raise UserError(
                f"window must not be longer than the longest song ({spec.longest_song} steps), but got {self.window}."
            )
        if self.head == "autoregressive" and not spec.is_binary:
            raise UserError(f"head must be independent for real data, but got {self.head!r}.")
        if self.transpose and not spec.is_music:
            raise UserError(f"transpose must be 0 for data that are no music, but got {self.transpose}.")
        if self.family == "hierarchical":
            self._check_bars(spec)

    def _check_bars(self, spec: DataSpec) -> None:
        if spec.steps_per_bar is None:
            raise UserError("family hierarchical needs a metre; pass --steps-per-bar.")
        if self.window < 2 * spec.steps_per_bar:
            raise UserError(
                f"family hierarchical needs a window of two bars or more ({2 * spec.steps_per_bar} steps), but window "
                f"is {self.window}."
            )
        if self.window % spec.steps_per_bar:
            raise UserError(
                f"family hierarchical needs a window of whole bars (steps_per_bar is {spec.steps_per_bar}), but window "
                f"is {self.window}."
            )

    @classmethod
    def words(cls) -> list[str]:
        """Every hyperparameter in a line: its name, default and range, what it is."""
        lines = []
        for field in dataclasses.fields(cls):
            known = field.metadata
            span = " | ".join(known["names"]) if "names" in known else f"{known['low']:g}..{known['high']:g}"
            lines.append(f"{field.name}={field.default}  ({span})  {known['unit']}")
        return lines

    @classmethod
    def parse(cls, spec: DataSpec, family: str, settings: list[str], horizon: int = 0) -> Self:
        """Builds a config from `NAME=VALUE` texts, as `--set` takes them.

        Raises:
            UserError: see `for_data`; or a text without `=`, or a value that is no number.
        """
        params: dict[str, Any] = {"family": family}
        kinds: dict[str, Any] = {field.name: type(field.default) for field in dataclasses.fields(cls)}
        for text in settings:
            name, equals, value = text.partition("=")
            if not equals:
                raise UserError(f"--set takes NAME=VALUE, but got {text!r}.")
            kind = kinds.get(name, str)
            try:
                params[name] = kind(value)
            except ValueError:
                raise UserError(f"{name} must be {_KIND[kind]}, but got {value!r}.") from None
        return cls.for_data(spec, params, horizon)


MOST_STEPS = 4096
"""The longest window that is proposed: a song's whole length, where it is no longer."""
MOST_ATTENDED = 1024
"""The same for transformers, each layer of which holds every step many times over."""
MOST_DENSE_WIDTH, MOST_HEAD_WIDTH = 1024, 384
"""That are proposed."""
_MOST_WEIGHTS = 25_000_000
"""Of dense layers: what they, their optimizer and copies take comes to a gibibyte."""
_MOST_AT_ONCE = 256
"""The longest window of dense layers, by default."""
_MOST_STEERED = 400
"""Steps of music that a row counts as, at most, in what its code has to say: `rate_target` ends at 100 nats."""
_SHOWN = 256
"""Steps that LSTMs are shown at once by default, at most: longer windows leave few to a batch, which is slow."""


def steps_as_wide(spec: DataSpec, steps: int) -> int:
    """The steps of the data, at least one, that are as wide as so many steps of music."""
    return max(1, steps // music_steps(spec.features, spec.is_music))


def kl_as_wide(spec: DataSpec, kl: float) -> float:
    """The KL of a step of the data, in nats, that says as much of it as `kl` says of a step of music."""
    return kl * min(music_steps(spec.features, spec.is_music), _MOST_STEERED)


def widest_dense(spec: DataSpec, window: int) -> int:
    """The widest dense layers that leave a trial in bounded memory, however much a window holds.

    Of width w: w for each input and each state of an output head, and at most 16 w^2 between hidden layers.
    """
    each = window * (spec.features + (MOST_HEAD_WIDTH if spec.is_binary else spec.features)) / 32
    return int(min(MOST_DENSE_WIDTH, max(1, math.sqrt(each**2 + _MOST_WEIGHTS / 16) - each)))


def whole_bars(spec: DataSpec) -> int:
    """The data's natural window, cut to whole bars where there are any, so that windows begin where bars do."""
    bar = spec.steps_per_bar or 1
    return max(min(spec.window, MOST_STEPS) // bar * bar, 1)


def _defaults(spec: DataSpec, family: str) -> dict[str, Any]:
    """What depends on the family and the data, where no one says otherwise."""
    values: dict[str, Any] = {"window": spec.window, "head": "autoregressive" if spec.is_binary else "independent"}
    values["batch_steps"] = steps_as_wide(spec, Config.batch_steps)
    values["rate_target"] = kl_as_wide(spec, Config.rate_target)
    values |= {"transpose": 6} if spec.is_music else {}
    values |= _OF_FAMILY.get(family, {})
    values |= {name: _between(*shares, spec) for name, shares in _DROPPED.get(family, {}).items()}
    if family in ("recurrent", "sequential") and 0 < spec.train_steps <= _FEW_STEPS:
        values["weight_dropout"] = 0.5
    if family == "dense":
        values["window"] = min(spec.window, _MOST_AT_ONCE)
        values["dense_width"] = min(Config.dense_width, widest_dense(spec, values["window"]))
    if family == "recurrent":
        values["window"] = min(spec.longest_song, _SHOWN)
    if family == "sequential":
        values |= {"window": min(spec.longest_song, MOST_STEPS), "crop": min(spec.longest_song, _SHOWN)}
    if family == "hierarchical":
        values["window"] = whole_bars(spec)
    if family == "transformer":
        values["window"] = min(spec.longest_song, 4 * spec.window, MOST_ATTENDED)
    return values


def _between(little: float, much: float, spec: DataSpec) -> float:
    """A share to drop in training, from that for little music to that for much, by the logarithm of how much there is.

    What there is little of is learned by heart; and the more is dropped, the longer training takes.
    """
    steps = min(max(spec.train_steps or _MANY_STEPS, _FEW_STEPS), _MANY_STEPS)
    part = math.log(steps / _FEW_STEPS) / math.log(_MANY_STEPS / _FEW_STEPS)
    return round(little + part * (much - little), 2)


_FEW_STEPS, _MANY_STEPS = 25_000, 200_000  # in train
_UNITS = {"dropout": (0.4, 0.1), "input_dropout": (0.2, 0.05), "head_dropout": (0.2, 0.05)}
_DROPPED = {
    "recurrent": _UNITS,
    "hierarchical": _UNITS,
    "sequential": _UNITS,
    "transformer": _UNITS | {"dropout": (0.2, 0.1)},
}
_SEQUENCES: dict[str, Any] = {"learning_rate": 3e-3, "latent_dim": 16}
_OF_FAMILY = {
    "recurrent": _SEQUENCES,
    "hierarchical": _SEQUENCES | {"latent_dim": 64},
    "sequential": _SEQUENCES,
    "transformer": _SEQUENCES | {"learning_rate": 1e-3},
}

_KIND = {int: "a whole number", float: "a number", str: "a word"}
