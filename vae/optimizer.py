"""AdamW with what trainers add to it: a schedule, clipping, and an average of the weights to evaluate."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from vae.config import Config
from vae.schedules import learning_rate

_MOMENTS = ("step", "exp_avg", "exp_avg_sq")
_YOUNG = 10.0  # the average of fewer steps than about this forgets faster than it will later


class Optimizer:
    """Updates a model; weight decay is put on matrices alone.

    The average is exponential, with decay `min(ema, (1 + n) / (10 + n))` at optimizer step n, so that it forgets the
    first weights (Polyak & Juditsky 1992; the rise as in TensorFlow's moving averages).
    """

    def __init__(self, model: nn.Module, config: Config) -> None:
        self.config = config
        self._parameters = dict(model.named_parameters())
        values = list(self._parameters.values())
        groups: list[dict[str, Any]] = [
            {"params": [p for p in values if p.ndim > 1], "weight_decay": config.weight_decay},
            {"params": [p for p in values if p.ndim <= 1], "weight_decay": 0.0},
        ]
        self._adam = torch.optim.AdamW([group for group in groups if group["params"]], fused=True)
        self._average = [p.detach().clone() for p in values] if config.ema else None

    def differentiate(self, loss: Tensor) -> None:
        """Puts the gradient of a scalar loss in the place of the one before; on a GPU into the same memory."""
        self._adam.zero_grad(set_to_none=loss.device.type == "cpu")
        loss.backward()  # type: ignore[no-untyped-call]

    def step(self, optimizer_step: int, steps_seen: int) -> None:
        """Follows the gradient, after so many optimizer steps, and time steps, of training."""
        values = list(self._parameters.values())
        for group in self._adam.param_groups:
            group["lr"] = learning_rate(self.config, optimizer_step, steps_seen)
        nn.utils.clip_grad_norm_(values, self.config.grad_clip)
        self._adam.step()
        if self._average is not None:
            decay = min(self.config.ema, (1.0 + optimizer_step) / (_YOUNG + optimizer_step))
            with torch.no_grad():
                torch._foreach_lerp_(self._average, list[Tensor](values), 1.0 - decay)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Puts the average, if there is one, in the place of the weights."""
        if self._average is None:
            yield
            return
        present = [p.detach().clone() for p in self._parameters.values()]
        self._put(self._average)
        try:
            yield
        finally:
            self._put(present)

    def _put(self, values: list[Tensor]) -> None:
        with torch.no_grad():  # in place: cuDNN wants the weights of an LSTM to stay where they are
            torch._foreach_copy_(list[Tensor](self._parameters.values()), values)

    def tensors(self) -> dict[str, Tensor]:
        """What `restore` needs."""
        named = {
            f"{key}.{name}": value
            for name, parameter in self._parameters.items()
            for key, value in self._adam.state[parameter].items()
        }
        averages = zip(self._parameters, self._average or [], strict=False)
        return named | {f"average.{name}": value for name, value in averages}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Goes on from what `tensors` gave."""
        for name, parameter in self._parameters.items():
            self._adam.state[parameter] = {
                key: tensors[f"{key}.{name}"].to(parameter.device)  # `step` too: fused, it counts on the device
                for key in _MOMENTS
                if f"{key}.{name}" in tensors
            }
        if self._average is not None:
            self._average = [tensors[f"average.{name}"].to(p.device) for name, p in self._parameters.items()]
