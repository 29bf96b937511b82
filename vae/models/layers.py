"""Parts that families of sequence models share.

Shape letters: B batch, T time steps, D features, H hidden units, E units that a step is read into.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vae.config import Config
from vae.encoding import DataSpec
from vae.models.dropout import Dropout
from vae.models.heads import Head
from vae.windows import Batch

Memory = tuple[Tensor, Tensor]
"""Keys and values, [B, J, E] each."""

State = tuple[Tensor, Tensor]
"""Output and cell of an LSTM, [1, B, H] each."""

_WEAK = 0.05  # of the usual size
_BASE = 10_000.0  # of the rotary wavelengths
_QUERIES = 256  # that look for moments at once: bounds the memory


def read_code(latent_dim: int, width: int) -> nn.Linear:
    """A layer that reads a code; weak at first, for a code that says nothing yet is noise to all that comes after."""
    layer = nn.Linear(latent_dim, width)
    with torch.no_grad():
        layer.weight.mul_(_WEAK)
    return layer


def attend(query: Tensor, key: Tensor, value: Tensor, is_causal: bool) -> Tensor:
    """Scaled dot-product attention of heads, [B, heads, T, E].

    In float32 on a CPU, where the backward pass takes six times as long in bf16.
    """
    on_cpu = query.device.type == "cpu"
    with torch.autocast(query.device.type, enabled=not on_cpu and torch.is_autocast_enabled(query.device.type)):
        if on_cpu:
            query, key, value = query.float(), key.float(), value.float()
        return nn.functional.scaled_dot_product_attention(query, key, value, is_causal=is_causal)


def rotate(x: Tensor, before: int) -> Tensor:
    """Turns pairs of units of [..., T, E] by angles that grow with the step, which counts from `before`; E is even.

    Rotary positions (Su et al. 2021): they tell attention how long ago something was, not where in the window.
    """
    half = x.shape[-1] // 2
    wavelength = _BASE ** (torch.arange(half, device=x.device) / half)
    angle = torch.arange(before, before + x.shape[-2], device=x.device)[:, None] / wavelength
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)


class StepReader(nn.Module):
    """Embeds steps; knows the transposition, so that a model trained on all keys still writes in the data's own."""

    def __init__(self, config: Config, spec: DataSpec, head: Head, width: int) -> None:
        super().__init__()
        self._standardise = head.likelihood.standardise
        self._transpose = config.transpose
        self.step = nn.Linear(spec.features, width)
        self.shift = nn.Embedding(2 * config.transpose + 1, width)
        nn.init.zeros_(self.shift.weight)

    def forward(self, x: Tensor, shift: Tensor, dropout: Dropout | None = None) -> Tensor:
        """[B, T, D] and [B] semitones to [B, T, E]; some of what is read may be dropped in training."""
        seen = self._standardise(x)
        read: Tensor = self.step(seen if dropout is None else dropout(seen)) + self.key(shift)[:, None]
        return read

    def key(self, shift: Tensor) -> Tensor:
        """What tells the transposition: [B] semitones to [B, E]."""
        key: Tensor = self.shift(shift + self._transpose)
        return key


class PastReader(nn.Module):
    """Embeds for each step the one before it; a learned vector at the start of a song."""

    def __init__(self, config: Config, spec: DataSpec, head: Head, width: int) -> None:
        super().__init__()
        self.reader = StepReader(config, spec, head, width)
        self.start = nn.Parameter(torch.zeros(width))
        self.dropout = Dropout(config.input_dropout)
        self._step_dropout, self._nothing = config.step_dropout, head.likelihood.nothing

    def forward(self, batch: Batch) -> Tensor:
        """[B, T, E]."""
        return self.read(self.hide(batch))

    def hide(self, batch: Batch) -> Batch:
        """The batch as the decoder may see it: in training some steps that lie before others are read as zeros."""
        if not (self.training and self._step_dropout):
            return batch
        kept = (torch.rand(batch.x.shape[:2], device=batch.x.device) >= self._step_dropout)[..., None]
        x = torch.cat([torch.where(kept[:, 1:], batch.x[:, :-1], self._nothing()), batch.x[:, -1:]], dim=1)
        return replace(batch, x=x, previous=torch.where(kept[:, 0], batch.previous, self._nothing()))

    def read(self, batch: Batch) -> Tensor:
        """As `forward`, with nothing hidden."""
        read = self.reader(torch.cat([batch.previous[:, None], batch.x[:, :-1]], dim=1), batch.shift)
        start = (self.start + self.reader.key(batch.shift)).to(read.dtype)
        first = torch.where(batch.begins[:, None], start, read[:, 0])
        dropped: Tensor = self.dropout(torch.cat([first[:, None], read[:, 1:]], dim=1))
        return dropped

    def first(self, n: int, after: Batch | None) -> Tensor:
        """For sampling: of the step before a window, or of none at the start of a song, [n, 1, E]."""
        start = (self.start + self.reader.key(torch.zeros_like(self.start[:1], dtype=torch.long))).expand(n, 1, -1)
        return start if after is None else torch.where(after.begins[:, None, None], start, self.one(after.previous))

    def one(self, x: Tensor) -> Tensor:
        """For sampling: of the step before, [n, D], to [n, 1, E]."""
        read: Tensor = self.reader(x[:, None], torch.zeros(len(x), dtype=torch.long, device=x.device))
        return read


class Summary(nn.Module):
    """A window in one vector: an LSTM each way over the steps, pooled over time; padding has no part in it."""

    def __init__(self, config: Config, spec: DataSpec, head: Head) -> None:
        super().__init__()
        width = config.encoder_width
        self.reader = StepReader(config, spec, head, width)
        self.forward_lstm = nn.LSTM(width, width, batch_first=True)
        self.backward_lstm = nn.LSTM(width, width, batch_first=True)
        self.dropout = Dropout(config.encoder_dropout)
        self.outputs = 4 * width

    def forward(self, batch: Batch) -> Tensor:
        """[B, 4 E]: mean and maximum over the steps, of both directions."""
        read = torch.relu(self.reader(batch.x, batch.shift, self.dropout))
        ahead, _ = self.forward_lstm(read)
        behind, _ = self.backward_lstm(reverse(read, batch.lengths))  # pooling does not ask for the order of steps
        states, real = torch.cat([ahead, behind], dim=-1), batch.mask[..., None]
        mean = (states * real).sum(1) / batch.lengths[:, None]
        most = states.masked_fill(~real, -1.0).amax(1)  # an LSTM's output lies in (-1, 1)
        pooled: Tensor = self.dropout(torch.cat([mean, most], dim=-1))
        return pooled


def reverse(x: Tensor, lengths: Tensor) -> Tensor:
    """Turns the real steps of each row of [B, T, E] around; padding stays at the end, holding what it may."""
    index = (lengths[:, None] - 1 - torch.arange(x.shape[1], device=x.device)).clamp(min=0)
    return x.gather(1, index[..., None].expand_as(x))


class Remembered(NamedTuple):
    """What a `Recall` remembers. Behind it there may be room, so that sampling need not copy all at every step."""

    keys: Tensor  # [B, 1 + length or more, 2 A], turned by their step, and as they are; first "no such moment"
    values: Tensor  # [B, 1 + length or more, A]
    length: int  # moments

    def with_room(self, steps: int) -> "Remembered":
        """A copy with room for so many further moments."""
        keys, values = (
            nn.functional.pad(part[:, : 1 + self.length], (0, 0, 0, steps)) for part in (self.keys, self.values)
        )
        return Remembered(keys, values, self.length)


class Recall(nn.Module):
    """Attention to what followed earlier moments like this one.

    The query is the decoder's state before step t, the keys are its states before earlier steps j, the values are
    those steps themselves: where the past is like the present, its continuation is a guess at the next step. After the
    neural cache of Grave et al. 2017, with learned projections, and with rotary positions, for music repeats itself
    after whole phrases. Lags are clipped (Shaw et al. 2018), at half of what training shows: so all that lies further
    back, in songs longer than that too, is met in training. Everything may attend to "no such moment", which scores 0.

    Args:
        width: H, of states.
        step_width: E, of steps.
        attention_width: A, of queries, keys and values; even.
        shown: steps that training shows at once.
    """

    def __init__(self, width: int, step_width: int, attention_width: int, shown: int) -> None:
        super().__init__()
        self._longest_lag = max(1, shown // 2)
        self.query = nn.Linear(width, attention_width)
        self.key = nn.Linear(width, attention_width)
        self.value = nn.Linear(step_width, attention_width)
        self.no_moment = nn.Parameter(torch.zeros(attention_width))  # its value
        self.output = nn.Linear(attention_width, width)

    def forward(self, states: Tensor, steps: Tensor) -> Tensor:
        """States before each step, [B, T, H], and the steps as read, [B, T, E], to [B, T, H]."""
        return self._found(states, self.remember(states[:, :-1], steps[:, :-1], self.begin(len(states))), 0)

    def _found(self, states: Tensor, memory: Remembered, before: int) -> Tensor:
        """What states find in the memory, the first of them after `before` moments: [B, T, H]."""
        query = self.query(states)
        far = rotate(query[:, :, None], self._longest_lag)[:, :, 0]
        queries = torch.cat([rotate(query, before), far], dim=-1)
        found = [
            self._look(queries[:, first : first + _QUERIES], memory, before + first)
            for first in range(0, queries.shape[1], _QUERIES)
        ]
        read: Tensor = self.output(torch.cat(found, dim=1))
        return read

    def _look(self, query: Tensor, memory: Remembered, before: int) -> Tensor:
        """Attends from queries, [B, T, 2 A], to the moments before each: [B, T, A]."""
        key, value = (part[:, : before + query.shape[1]] for part in (memory.keys, memory.values))
        at = torch.arange(key.shape[1], device=key.device)
        ago = at[before:, None] - at + 1  # "no such moment", of which all scores are 0, stands first
        (near, far), (near_key, far_key) = query.chunk(2, dim=-1), key.chunk(2, dim=-1)
        scores = torch.where(ago < self._longest_lag, near @ near_key.mT, far @ far_key.mT) / value.shape[-1] ** 0.5
        found: Tensor = scores.masked_fill(ago < 1, -torch.inf).softmax(dim=-1) @ value
        return found

    def begin(self, n: int) -> Remembered:
        """Of n sequences without a past."""
        value = self.no_moment.expand(n, 1, -1)
        return Remembered(value.new_zeros(n, 1, 2 * value.shape[-1]), value, 0)

    def remember(self, states: Tensor, steps: Tensor, memory: Remembered) -> Remembered:
        """Adds moments; in place where there is room for them."""
        key, value = self.key(states), self.value(steps)
        key = torch.cat([rotate(key, memory.length), key], dim=-1)
        begin, length = 1 + memory.length, memory.length + states.shape[1]
        if memory.keys.shape[1] == begin:
            keys, values = memory.keys[:, :begin].to(key.dtype), memory.values[:, :begin].to(value.dtype)
            return Remembered(torch.cat([keys, key], dim=1), torch.cat([values, value], dim=1), length)
        memory.keys[:, begin : 1 + length], memory.values[:, begin : 1 + length] = key, value
        return memory._replace(length=length)

    def one(self, state: Tensor, memory: Remembered) -> Tensor:
        """For sampling: attends from the newest state, [n, 1, H], to all of the memory."""
        return self._found(state, memory, memory.length)


class Lstm(nn.Module):
    """LSTMs one upon the other, with dropout between them; `nn.LSTM`, but for where that dropout comes from.

    On a GPU that of `nn.LSTM` lives in a buffer of cuDNN's that a seed replaces, from under `vae.graphs`. Weights that
    lead from a state to the next may be dropped too, the same for all steps of a batch (Merity et al. 2018).
    """

    def __init__(self, width: int, layers: int, dropout: float, weight_dropout: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.LSTM(width, width, batch_first=True) for _ in range(layers))
        self.dropout = Dropout(dropout)
        self.weight_dropout = Dropout(weight_dropout)

    def forward(self, x: Tensor, before: list[State] | None = None) -> tuple[Tensor, list[State]]:
        """[B, T, H] to [B, T, H], and the states that the layers are left in; `before`: that they begin in."""
        left: list[State] = []
        for i, layer in enumerate(self.layers):
            assert isinstance(layer, nn.LSTM)
            x, state = self._run(layer, self.dropout(x) if i else x, before[i] if before else None)
            left.append(state)
        return x, left

    def _run(self, layer: nn.LSTM, x: Tensor, before: State | None) -> tuple[Tensor, State]:
        """A layer, with some of its weights dropped.

        By the function that `nn.LSTM` calls: given other weights the module itself would lay all of them out anew on a
        GPU, where graphs and the optimizer know them by their places.
        """
        weight = self.weight_dropout(layer.weight_hh_l0)
        if weight is layer.weight_hh_l0:
            ran: tuple[Tensor, State] = layer(x, before)
            return ran
        none = x.new_zeros(1, len(x), layer.hidden_size)
        weights = [layer.weight_ih_l0, weight, layer.bias_ih_l0, layer.bias_hh_l0]
        out, h, c = torch.lstm(x, before or (none, none), weights, True, 1, 0.0, self.training, False, True)
        return out, (h, c)


class Pen(NamedTuple):
    """Where a `Writer` is while it samples."""

    read: Tensor  # [n, 1, E], the step before
    lstm: list[State] | None
    memory: Remembered | None
    state: Tensor | None  # [n, 1, H], before the step that comes next


class Writer(nn.Module):
    """An autoregressive decoder up to its head: an LSTM over the steps before each, and its `Recall`."""

    def __init__(self, config: Config, spec: DataSpec, head: Head, shown: int) -> None:
        super().__init__()
        width = config.rnn_width
        self.past = PastReader(config, spec, head, width)
        self.lstm = Lstm(width, config.rnn_layers, config.dropout, config.weight_dropout)
        self.dropout = Dropout(config.dropout)
        self.recall = Recall(width, width, config.recall_width, shown) if config.recall_width else None

    def forward(self, batch: Batch, into: Tensor | float = 0.0, onto: Tensor | float = 0.0) -> Tensor:
        """The state before each step, [B, T, H].

        Args:
            batch: windows.
            into: [B, 1, H], added to what the LSTM reads at each step.
            onto: [B, 1, H], added to what comes out of it.
        """
        batch = self.past.hide(batch)
        written, _ = self.lstm(self.past.read(batch) + into)
        states: Tensor = self.dropout(written + onto)
        if self.recall is None:
            return states
        found = self.recall(states, self.past.reader(batch.x, batch.shift))
        recalled: Tensor = states + self.dropout(found)
        return recalled

    def begin(self, n: int, after: Batch | None) -> Pen:
        """At the start of n songs, or in the place of windows, after the step before each."""
        return Pen(self.past.first(n, after), None, self.recall.begin(n) if self.recall is not None else None, None)

    def next(self, pen: Pen, into: Tensor | float = 0.0, onto: Tensor | float = 0.0) -> tuple[Tensor, Pen]:
        """The state before the next step, [n, 1, H]; `into` and `onto` as in `forward`."""
        states, lstm = self.lstm(pen.read + into, pen.lstm)
        states = states + onto
        pen = pen._replace(lstm=lstm, state=states)
        if self.recall is not None and pen.memory is not None:
            states = states + self.recall.one(states, pen.memory)
        return states, pen

    def play(
        self,
        pen: Pen,
        steps: int,
        draw: Callable[[Tensor, int], Tensor],
        into: Tensor | float = 0.0,
        onto: Tensor | float = 0.0,
    ) -> Tensor:
        """Writes step after step, [n, T, D].

        Args:
            pen: where to begin.
            steps: T.
            draw: a step, [n, D], given the state before it, [n, 1, H], and its number.
            into: as in `forward`.
            onto: as in `forward`.
        """
        pen = pen._replace(memory=pen.memory and pen.memory.with_room(steps))
        written = []
        for step in range(steps):
            state, pen = self.next(pen, into, onto)
            written.append(draw(state, step))
            pen = self.write(pen, written[-1])
        return torch.stack(written, dim=1)

    def write(self, pen: Pen, x: Tensor) -> Pen:
        """Takes in the next step, [n, D]."""
        read, memory = self.past.one(x), pen.memory
        if self.recall is not None and memory is not None and pen.state is not None:
            memory = self.recall.remember(pen.state, read, memory)
        return pen._replace(read=read, memory=memory)
