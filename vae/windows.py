"""Songs as one tensor on a device, and windows cut from it.

A window is the unit that has a latent code. Windows partition each song, so every step counts exactly once.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vae.corpus import Split


@dataclass(frozen=True)
class Batch:
    """Windows of a few songs."""

    x: Tensor  # [B, T, D], zero where padded
    mask: Tensor  # [B, T] bool, true at real steps
    previous: Tensor  # [B, D], the step before the window; zero at the start of a song


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


class Songs:
    """A split's songs, end to end on one device."""

    def __init__(self, split: Split, device: torch.device) -> None:
        self.lengths = torch.from_numpy(split.lengths.astype(np.int64))
        self.starts = torch.cumsum(self.lengths, 0) - self.lengths
        silent = np.zeros((1, split.values.shape[1]), split.values.dtype)
        # A row of zeros at the end stands for padding and for what comes before a song.
        self.values = torch.from_numpy(np.concatenate([split.values, silent])).to(device)
        self.steps = len(split.values)

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

    def batch(self, plan: Plan, window: int) -> Batch:
        """Gathers the windows of a plan, padded at the end to `window` steps."""
        device = self.values.device
        start, length = plan.start.to(device), plan.length.to(device)
        offsets = torch.arange(window, device=device)
        mask = offsets < length[:, None]
        rows = torch.where(mask, start[:, None] + offsets, self.steps)
        before = torch.where(plan.start > self.starts[plan.song], plan.start - 1, self.steps).to(device)
        x = self.values.index_select(0, rows.flatten()).view(*rows.shape, -1)
        return Batch(x.float(), mask, self.values[before].float())


class Order:
    """An endless stream of training windows: pass after pass over the songs, each cut anew and shuffled.

    Cuts move by a random phase a song and pass, so that a model sees the music at every alignment.
    """

    def __init__(self, songs: Songs, window: int, seed: int) -> None:
        self._songs, self._window = songs, window
        self._generator = torch.Generator().manual_seed(seed)
        self._next_pass()

    def _next_pass(self) -> None:
        self._state = self._generator.get_state()
        phase = torch.randint(self._window, self._songs.lengths.shape, generator=self._generator)
        plan = self._songs.partition(self._window, phase)
        self._plan = plan[torch.randperm(len(plan), generator=self._generator)]
        self._cursor = 0

    def take(self, count: int) -> Plan:
        """The next `count` windows; a batch may reach over into the next pass."""
        parts: list[Plan] = []
        while count > 0:
            if self._cursor == len(self._plan):
                self._next_pass()
            part = self._plan[self._cursor : self._cursor + count]
            self._cursor += len(part)
            count -= len(part)
            parts.append(part)
        return Plan(*(torch.cat([getattr(p, name) for p in parts]) for name in ("song", "start", "length")))

    def state(self) -> dict[str, Tensor]:
        """What `restore` needs to go on exactly here."""
        return {"generator": self._state, "cursor": torch.tensor(self._cursor)}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Goes on where `state` was taken."""
        self._generator.set_state(state["generator"].cpu())
        self._next_pass()
        self._cursor = int(state["cursor"])
