"""Config: every hyperparameter, its default, unit and range."""

import dataclasses
import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from vae.encoding import DataSpec
from vae.errors import UserError

FAMILY_NAMES = ("dense", "recurrent")


def _number(default: float, low: float, high: float, unit: str) -> Any:
    """A hyperparameter that must lie in [low, high]; its type is that of the default."""
    return dataclasses.field(default=default, metadata={"low": low, "high": high, "unit": unit})


@dataclass(frozen=True)
class Config:
    """Hyperparameters of one model and its training; the defaults of `dense` are the seed's VAE.

    Raises:
        UserError: a value lies outside its range.
    """

    family: str = "dense"
    window: int = _number(16, 1, 100_000, "time steps that share one latent code")
    latent_dim: int = _number(100, 1, 4096, "dimensions of the code")
    dense_width: int = _number(256, 1, 16384, "units of the outer hidden layers; inner ones have twice as many")
    dense_depth: int = _number(3, 1, 16, "hidden layers of the encoder, and of the decoder")
    rnn_width: int = _number(256, 1, 16384, "hidden units of each GRU")
    rnn_layers: int = _number(1, 1, 16, "layers of the decoder's GRU")
    dropout: float = _number(0.0, 0.0, 0.95, "share of hidden units dropped in training")
    batch_size: int = _number(64, 1, 65536, "windows")
    learning_rate: float = _number(1e-3, 1e-8, 10.0, "AdamW step size at its peak")
    lr_warmup: int = _number(0, 0, 10**9, "optimizer steps of linear rise")
    lr_decay: int = _number(0, 0, 10**9, "optimizer steps of cosine fall after the rise; 0: none")
    lr_final: float = _number(0.1, 0.0, 1.0, "share of the peak that the fall ends at")
    weight_decay: float = _number(0.0, 0.0, 10.0, "AdamW's, on matrices only")
    grad_clip: float = _number(1.0, 1e-6, 1e9, "largest norm of the gradient")
    beta: float = _number(1.0, 0.0, 100.0, "weight of the KL in training once warmed up")
    beta_warmup: int = _number(0, 0, 10**9, "optimizer steps of linear rise of beta from 0")
    free_bits: float = _number(0.0, 0.0, 100.0, "nats a time step of KL that cost nothing in training")

    def __post_init__(self) -> None:
        """Refuses values that can't work."""
        if self.family not in FAMILY_NAMES:
            raise UserError(f"family must be one of {', '.join(FAMILY_NAMES)}, but got {self.family!r}.")
        for field in dataclasses.fields(self):
            if field.metadata:
                self._check(field)

    def _check(self, field: "dataclasses.Field[Any]") -> None:
        value, low, high = getattr(self, field.name), field.metadata["low"], field.metadata["high"]
        kind = type(field.default)
        if isinstance(value, bool) or not isinstance(value, int | float if kind is float else int):
            raise UserError(f"{field.name} must be {_KIND[kind]}, but got {value!r}.")
        if not low <= value <= high:  # NaN fails every comparison, so it is refused too
            raise UserError(
                f"{field.name} must lie in {low:g}..{high:g} ({field.metadata['unit']}), but got {value!r}."
            )

    @classmethod
    def for_data(cls, spec: DataSpec, params: Mapping[str, Any]) -> Self:
        """Builds a config for one corpus; the window defaults to the data's natural unit.

        Raises:
            UserError: an unknown name, a value out of range, or a window longer than any song.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        for name in params:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}."
                raise UserError(f"unknown hyperparameter {name!r}; {hint}")
        config = cls(**{"window": spec.window, **params})
        if config.window > spec.longest_song:
            raise UserError(
                f"window must not be longer than the longest song ({spec.longest_song} steps), but got {config.window}."
            )
        return config

    @classmethod
    def parse(cls, spec: DataSpec, family: str, settings: list[str]) -> Self:
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
        return cls.for_data(spec, params)


_KIND = {int: "a whole number", float: "a number", str: "a word"}
