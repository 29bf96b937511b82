"""Output heads: from what a decoder knows of a step to the distribution of the step's features.

Two kinds, both with an exact likelihood: features independent of each other, or each given those before it. Shape
letters: N steps, H units that the decoder gives a head, D features, W units of the autoregressive head, R prefixes.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vae.config import Config
from vae.encoding import DataSpec
from vae.models.dropout import Dropout
from vae.models.likelihood import Bernoulli, Moments, build_likelihood


def build_head(config: Config, spec: DataSpec, moments: Moments | None, inputs: int | None) -> "Head":
    """The head that the config names.

    Args:
        config: hyperparameters.
        spec: the data.
        moments: of the training set, for the initial output; None if weights will be loaded.
        inputs: H; None if the decoder makes the parameters of independent features itself.
    """
    if inputs is None or config.head == "independent":
        return IndependentHead(spec, moments, inputs)
    return AutoregressiveHead(config, spec, moments, inputs)


class IndependentHead(nn.Module):
    """Features that know nothing of each other, given the decoder's state; binary or real."""

    def __init__(self, spec: DataSpec, moments: Moments | None, inputs: int | None) -> None:
        super().__init__()
        self.likelihood = build_likelihood(spec, moments)
        self.output = nn.Identity() if inputs is None else nn.Linear(inputs, spec.features)
        if isinstance(self.output, nn.Linear):
            with torch.no_grad():
                self.output.bias.copy_(self.likelihood.initial_bias)

    def logits(self, h: Tensor, x: Tensor) -> Tensor:
        """The parameter of each feature, whatever the others are: [N, H] and [N, D] to [N, D]."""
        del x
        parameters: Tensor = self.output(h)
        return parameters

    def log_prob(self, h: Tensor, x: Tensor, on: int | None = None) -> Tensor:
        """Log p(x|h), summed over features: [N, H] and [N, D] to [N], in nats."""
        del on
        return self.likelihood.log_prob(self.output(h), x)

    def sample(self, h: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
        """Draws x ~ p(x|h), [..., H] to [..., D]; for real data the mean."""
        return self.likelihood.sample(self.output(h), temperature, generator)


_ROWS = 256
"""Prefixes come in multiples of so many: CPUs compile products for each shape, which costs more than some rows."""
_MOST_ROWS = 2**15
"""Prefixes that are scored at once on a CPU; in training, which keeps all layers, half a GiB of the widest head."""


class _Prefixes(NamedTuple):
    """Every state that a step passes through: before its first key that is on, after it, after the second ..."""

    keys: Tensor  # [R, D], the keys that are on so far
    step: Tensor  # [R] int64, whose
    owner: Tensor  # [N, D] int64, the prefix that each key of each step is scored from


class AutoregressiveHead(nn.Module):
    """Each key of a step given the keys below it: log p(x|h) = sum_k log p(x_k | x_<k, h).

    A NADE (Larochelle & Murray 2011; over a recurrent net, Boulanger-Lewandowski et al. 2012) with residual layers:

        s_k = relu(C h + E x_<k),  s_k = s_k + relu(V s_k) per layer,  logit_k = o_k . s_k + b_k

    x_<k changes only where a key is on. So s is computed once a prefix, not once a key: for music with four keys on, 5
    times a step instead of 88.
    """

    def __init__(self, config: Config, spec: DataSpec, moments: Moments | None, inputs: int) -> None:
        super().__init__()
        width = config.head_width
        self.likelihood = Bernoulli(spec.features, moments)
        self.read = nn.Linear(inputs, width)
        self.read_keys = nn.Linear(spec.features, width, bias=False)
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(config.head_layers))
        self.output = nn.Linear(width, spec.features)
        self.dropout = Dropout(config.head_dropout)
        with torch.no_grad():
            self.output.bias.copy_(self.likelihood.initial_bias)

    def logits(self, h: Tensor, x: Tensor, on: int | None = None) -> Tensor:
        """The logit of each key given those below it: [N, H] and [N, D] to [N, D]; `on` as of `log_prob`."""
        prefixes = _prefixes(x, on)
        read = self.read(h).index_select(0, prefixes.step)
        return self._logits(read, prefixes.keys).float().gather(0, prefixes.owner)

    def _logits(self, read: Tensor, keys: Tensor) -> Tensor:
        """The logits of all keys after a prefix: C h, [R, W], and the prefix, [R, D], to [R, D]."""
        state = torch.relu(read + self.read_keys(keys))
        for layer in self.layers:
            state = state + torch.relu(layer(self.dropout(state)))
        logits: Tensor = self.output(self.dropout(state))
        return logits

    def log_prob(self, h: Tensor, x: Tensor, on: int | None = None) -> Tensor:
        """Log p(x|h), summed over keys: [N, H] and [N, D] to [N], in nats.

        Args:
            h: of the decoder.
            x: 0 and 1.
            on: a bound on how many keys of x are on; None: they are counted, for which a GPU is waited for.
        """
        parts = -(-(len(x) + int(x.sum())) // _MOST_ROWS) if x.device.type == "cpu" else 1
        if parts == 1:
            return self._log_prob(h, x, on)
        # Dense music in a window of thousands of steps: a part after the other, and again for its gradient.
        pairs = zip(h.chunk(parts), x.chunk(parts), strict=True)
        if not torch.is_grad_enabled():
            return torch.cat([self._log_prob(*pair) for pair in pairs])
        return torch.cat([checkpoint(self._log_prob, *pair, use_reentrant=False) for pair in pairs])

    def _log_prob(self, h: Tensor, x: Tensor, on: int | None = None) -> Tensor:
        return self.likelihood.log_prob(self.logits(h, x, on), x)

    def sample(self, h: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
        """Draws x ~ p(x|h), [..., H] to [..., D]; drawn on the CPU so that devices agree.

        From the lowest key upwards, a whole gap at a time: all keys above the last one that is on are drawn at once,
        and the lowest hit counts. It says nothing of the uniform numbers of the keys above it, which serve again.
        """
        read = self.read(h.flatten(0, -2))
        x: Tensor = read.new_zeros(len(read), self.output.out_features)
        key = torch.arange(x.shape[1], device=x.device)
        last = key.new_full((len(x), 1), -1)
        uniform = torch.rand(x.shape, generator=generator).to(x.device)
        while True:
            logits = self._logits(read, x)
            hit = self.likelihood.on(logits, temperature, uniform) & (key > last)
            found, lowest = hit.any(1, keepdim=True), hit.int().argmax(1, keepdim=True)
            if not found.any():
                return x.view(*h.shape[:-1], -1)
            x = x.scatter_add(1, lowest, found.to(x.dtype))
            last = torch.where(found, lowest, len(key))


Head = IndependentHead | AutoregressiveHead


def _prefixes(x: Tensor, on: int | None) -> _Prefixes:
    """All prefixes of the steps [N, D], 0 and 1; some more at the end that nobody owns, see `_ROWS`; `on` a bound."""
    through = x.cumsum(1)  # keys on up to and including each
    count = through[:, -1].long() + 1
    first = count.cumsum(0) - count
    rows = None if on is None else len(x) + on
    count[-1] += -count.sum() % _ROWS if rows is None else rows - count.sum()
    step = torch.repeat_interleave(torch.arange(len(x), device=x.device), count, output_size=rows)
    number = torch.arange(len(step), device=x.device) - first.index_select(0, step)
    # Keys that are off take no part, so that no gradient reaches a key through a prefix that ends below it.
    place = through.masked_fill(x == 0, torch.inf)
    keys = x.index_select(0, step) * (place.index_select(0, step) <= number[:, None])
    return _Prefixes(keys, step, first[:, None] + (through - x).long())
