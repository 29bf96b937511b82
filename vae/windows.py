"""Songs as one tensor on a device, and windows cut from it.

A window is the unit that a model scores at once: a song, or a part of one. Windows partition each song, so every
step counts exactly once.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from vae.corpus import Split
from vae.encoding import PITCHES

_POOL = 16
"""Batches that a pass is sorted within, so that windows of like length come together and little is padded."""
_PADDED, _FILLED_UP = 1.25, 4.0
"""Times its steps that a batch may have with padding: up to its longest window, and up to what the model pads that to.

The second is larger, for dense layers take little memory for padding, and fewer windows would make more batches than
schedules reckon with. A single window may be longer.
"""
_ON = 1024  # features that are on are counted in multiples of so many, so that few shapes differ


@dataclass(frozen=True)
class Batch:
    """Windows of a few songs."""

    x: Tensor  # [B, T, D], zero where padded
    mask: Tensor  # [B, T] bool, true at real steps; padding comes last
    previous: Tensor  # [B, D], the step before the window; zero at the start of a song
    begins: Tensor  # [B] bool, whether the window begins its song
    shift: Tensor  # [B] int64, semitones by which the music was moved up
    on: int | None = None  # binary features that are on, at most; None on a CPU, which counts them at no cost

    @property
    def lengths(self) -> Tensor:
        """Real steps of each window, [B]."""
        return self.mask.sum(1)


@dataclass(frozen=True)
class Plan:
    """Where windows lie; on the CPU."""

    song: Tensor  # [N] int64
    start: Tensor  # [N] int64, row of the first step
    length: Tensor  # [N] int64, real steps

    def __len__(self) -> int:
        """The number of windows."""
        return len(self.song)

    def __getitem__(self, part: slice | Tensor) -> "Plan":
        """Some of the windows."""
        return Plan(self.song[part], self.start[part], self.length[part])

    @property
    def longest(self) -> int:
        """Steps of the longest window."""
        return int(self.length.max())

    @property
    def steps(self) -> int:
        """Real steps in all."""
        return int(self.length.sum())


class Shape(NamedTuple):
    """What the sizes of a batch's tensors hang on, beside the number of windows."""

    steps: int  # T
    on: int | None  # as of `Batch`


def join(plans: list[Plan]) -> Plan:
    """One plan after another."""
    return Plan(*(torch.cat([getattr(plan, name) for plan in plans]) for name in ("song", "start", "length")))


def in_batches(plan: Plan, steps: int, padded_to: Callable[[int], int] = int) -> Iterator[Tensor]:
    """The windows of a plan, longest first, in groups of at most `steps` steps with padding, or of one: indices.

    Args:
        plan: the windows.
        steps: of a group.
        padded_to: steps that a group is padded to whose longest window has so many; no more by default.
    """
    order = torch.argsort(plan.length, descending=True, stable=True)
    at = 0
    while at < len(order):
        count = max(1, steps // padded_to(int(plan.length[order[at]])))
        yield order[at : at + count]
        at += count


class Songs:
    """A split's songs, end to end on one device."""

    def __init__(self, split: Split, device: torch.device) -> None:
        self.lengths = torch.from_numpy(split.lengths.astype(np.int64))
        self.starts = torch.cumsum(self.lengths, 0) - self.lengths
        silent = np.zeros((1, split.values.shape[1]), split.values.dtype)
        # A row of zeros at the end stands for padding and for what comes before a song.
        self.values = torch.from_numpy(np.concatenate([split.values, silent])).to(device)
        self.steps = len(split.values)
        on = split.values.sum(1, dtype=np.int64) if split.values.dtype == np.uint8 else np.zeros(self.steps, np.int64)
        self._on = torch.from_numpy(np.concatenate([[0], on.cumsum()]))  # [steps + 1], before each step

    def partition(self, window: int, phase: Tensor | None = None) -> Plan:
        """Cuts every song into consecutive windows, in order.

        Args:
            window: steps.
            phase: [songs], steps (0 to window - 1) by which the cuts of each song move to the left; a song that fits
                into one window stays whole.
        """
        phase = torch.zeros_like(self.lengths) if phase is None else phase * (self.lengths > window)
        counts = torch.div(self.lengths + phase + window - 1, window, rounding_mode="floor")
        song = torch.repeat_interleave(torch.arange(len(counts)), counts)
        index = torch.arange(len(song)) - (torch.cumsum(counts, 0) - counts)[song]
        begin = index * window - phase[song]
        end = torch.minimum(begin + window, self.lengths[song])
        begin = begin.clamp(min=0)
        return Plan(song, self.starts[song] + begin, end - begin)

    def batch(self, plan: Plan, steps: int, shift: Tensor | None = None) -> Batch:
        """Gathers the windows of a plan, padded at the end to `steps` steps.

        Args:
            plan: the windows.
            steps: at least the longest window's.
            shift: [B], semitones by which each window is transposed; for piano rolls.
        """
        places = self.places(plan, shift).to(self.values.device)
        return self.gather(places, self.shape(plan, steps), shift is not None)

    def shape(self, plan: Plan, steps: int) -> Shape:
        """Of the batch of a plan, padded to `steps` steps."""
        if self.values.device.type == "cpu":
            return Shape(steps, None)
        on = int((self._on[plan.start + plan.length] - self._on[plan.start]).sum())
        return Shape(steps, -(-on // _ON) * _ON)

    def places(self, plan: Plan, shift: Tensor | None = None) -> Tensor:
        """What `gather` needs of a plan, [5, B] int64 on the CPU; `shift` as of `batch`."""
        begins = plan.start == self.starts[plan.song]
        before = torch.where(begins, self.steps, plan.start - 1)
        shift = torch.zeros_like(plan.start) if shift is None else shift
        return torch.stack([plan.start, plan.length, before, begins, shift])

    def gather(self, places: Tensor, shape: Shape, moved: bool) -> Batch:
        """The batch at some places, which lie on this device; `moved`: whether any window may be transposed."""
        start, length, before, begins, shift = places
        offsets = torch.arange(shape.steps, device=places.device)
        mask = offsets < length[:, None]
        rows = torch.cat([before[:, None], torch.where(mask, start[:, None] + offsets, self.steps)], dim=1)
        values = self.values.index_select(0, rows.flatten()).view(*rows.shape, -1)
        values = (_transpose(values, shift) if moved else values).float()
        return Batch(values[:, 1:], mask, values[:, 0], begins.bool(), shift, shape.on)


def _transpose(rolls: Tensor, shift: Tensor) -> Tensor:
    """Moves piano rolls [B, T, 88 or 2 x 88] up by [B] semitones; what leaves the keyboard is lost."""
    keys = torch.arange(PITCHES, device=rolls.device) - shift[:, None]  # [B, 88], where each key's value comes from
    within = (keys >= 0) & (keys < PITCHES)
    halves = rolls.view(*rolls.shape[:2], -1, PITCHES)
    index = keys.clamp(0, PITCHES - 1)[:, None, None].expand_as(halves)
    moved: Tensor = halves.gather(3, index) * within[:, None, None]
    return moved.flatten(2)


class Order:
    """An endless stream of training batches: pass after pass over the songs, each cut anew and shuffled.

    Cuts move by a random phase a song and pass, so that a model sees the music at every alignment.

    Args:
        songs: the training split.
        window: steps.
        batch_steps: real steps in a batch, about; fewer where windows are padded much.
        seed: of phases and order.
        grid: phases are multiples of so many steps, such as a bar.
        padded_to: as of `in_batches`.
    """

    def __init__(
        self,
        songs: Songs,
        window: int,
        batch_steps: int,
        seed: int,
        grid: int = 1,
        padded_to: Callable[[int], int] = int,
    ) -> None:
        self._songs, self._window, self._batch_steps, self._grid = songs, window, batch_steps, grid
        self._padded_to = padded_to
        self._generator = torch.Generator().manual_seed(seed)
        self._next_pass()

    def _next_pass(self) -> None:
        self._state = self._generator.get_state()
        # A corpus of less than a pool goes around several times, or every pass would end in a batch too small.
        times = max(1, _POOL * self._batch_steps // self._songs.steps)
        whole = int(self._songs.lengths.max()) <= self._window  # then all cuts are the same
        plans = [self._cut()] * times if whole else [self._cut() for _ in range(times)]
        self._batches = self._shuffle(join(plans))
        self._cursor = 0

    def _cut(self) -> Plan:
        most = -(-self._window // self._grid)
        phase = torch.randint(most, self._songs.lengths.shape, generator=self._generator) * self._grid
        return self._songs.partition(self._window, phase)

    def _shuffle(self, plan: Plan) -> list[Plan]:
        """Batches of like windows, in random order."""
        plan = plan[torch.randperm(len(plan), generator=self._generator)]
        pools = torch.div(plan.length.cumsum(0) - 1, _POOL * self._batch_steps, rounding_mode="floor")
        # Pools rise and fall by turns, so that the batch on the border of two holds windows of like length too.
        by_length = torch.argsort(torch.where(pools % 2 == 1, -plan.length, plan.length), stable=True)
        plan = plan[by_length[torch.argsort(pools[by_length], stable=True)]]
        batches = self._in_turn(plan)
        return [batches[i] for i in torch.randperm(len(batches), generator=self._generator).tolist()]

    def _in_turn(self, plan: Plan) -> list[Plan]:
        """Windows one after another in batches, alike in their steps, but smaller where much would be padding."""
        batches, left = [], plan.steps
        begin = steps = longest = 0
        share = self._share(left)
        for i, length in enumerate(plan.length.tolist()):
            longest = max(longest, length)
            if steps and (steps + length / 2 > share or self._crowded(i + 1 - begin, longest)):
                batches.append(plan[begin:i])
                left -= steps
                share = self._share(left)
                begin, steps, longest = i, 0, length
            steps += length
        return [*batches, plan[begin:]]

    def _share(self, steps: int) -> float:
        """Of so many steps, what the next batch has, so that all have about as many."""
        return steps / max(1, round(steps / self._batch_steps))

    def _crowded(self, count: int, longest: int) -> bool:
        """Whether so many windows have too much padding for a batch."""
        padded, filled_up = count * longest, count * self._padded_to(longest)
        return padded > _PADDED * self._batch_steps or filled_up > _FILLED_UP * self._batch_steps

    def take(self) -> Plan:
        """The next batch."""
        if self._cursor >= len(self._batches):  # more in a checkpoint whose batches were made otherwise
            self._next_pass()
        self._cursor += 1
        return self._batches[self._cursor - 1]

    def state(self) -> dict[str, Tensor]:
        """What `restore` needs to go on exactly here."""
        return {"generator": self._state, "cursor": torch.tensor(self._cursor)}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Goes on where `state` was taken."""
        self._generator.set_state(state["generator"].cpu())
        self._next_pass()
        self._cursor = int(state["cursor"])
