"""Training steps as CUDA graphs.

On a GPU a small model's step is hundreds of kernels of some microseconds each, and Python takes ten times as long to
launch them one by one. A graph launches all of them at once. It is for tensors of one shape, at one place in memory: so
batches come in few shapes on a GPU (`Vae.padded_to`, `Batch.on`), and what they hold is copied to where it was.

`VAE_GRAPHS=0` in the environment launches every step.
"""

import contextlib
import os
from collections import Counter
from collections.abc import Callable

import torch
from torch import Tensor

from vae.device import lacks_memory
from vae.windows import Shape

_WARM = 2
"""Times that a shape is computed before its graph is recorded: libraries choose their algorithms, gradients get their
memory, and shapes that hardly ever come are not worth a graph."""
_MOST_STEPS, _LEAST_STEPS = 0 if os.environ.get("VAE_GRAPHS") == "0" else 16_384, 256
"""Time steps of all graphs of a trainer, of which each counts as so many at least: 64 graphs, fewer of long windows,
whose LSTMs take kernels a step."""

Compute = Callable[[Shape, Tensor, Tensor], Tensor]
_Graph = tuple[torch.cuda.CUDAGraph, tuple[Tensor, ...], Tensor]
"""With the places of its inputs, and that of its output."""


class Graphs:
    """A trainer's gradients: on a GPU recorded once per shape of a batch and then replayed, elsewhere computed.

    It does not hold what it computes, a method of the trainer: a GPU's memory is free once nobody has the trainer. A
    trainer has a stream of its own to record on. Where graphs share one, newer releases of PyTorch free what products
    work in with any graph, for all.

    Args:
        device: of the trainer.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._seen: Counter[tuple[int, Shape]] = Counter()
        self._graphs: dict[tuple[int, Shape], _Graph] = {}
        self._steps_left = _MOST_STEPS if device.type == "cuda" else 0
        if self._steps_left:
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            self._pool = torch.cuda.graph_pool_handle()

    def run(self, compute: Compute, shape: Shape, places: Tensor, numbers: Tensor) -> Tensor:
        """Gives `compute(shape, places, numbers)`, valid until the next call.

        Args:
            compute: the same at every call; waits for nothing, and changes only tensors that stay in place.
            shape: of the batch, but for its windows.
            places: [5, B], on the CPU.
            numbers: [N], on the CPU.
        """
        key = (places.shape[1], shape)
        if key not in self._graphs and not self._recorded(key, compute, shape, places, numbers):
            given = (tensor.to(self._device, non_blocking=True) for tensor in (places, numbers))
            return compute(shape, *given)
        graph, own, made = self._graphs[key]
        for place, tensor in zip(own, (places, numbers), strict=True):
            place.copy_(tensor, non_blocking=True)
        graph.replay()
        return made

    def _recorded(self, key: tuple[int, Shape], compute: Compute, shape: Shape, *inputs: Tensor) -> bool:
        """Records what has come often enough, if there is room."""
        self._seen[key] += 1
        cost = max(_LEAST_STEPS, shape.steps)
        if self._seen[key] <= _WARM or cost > self._steps_left:
            return False
        try:
            self._graphs[key] = self._record(compute, shape, *inputs)
        except RuntimeError as error:
            if not lacks_memory(error):
                raise
            # What is recorded keeps its memory. Launched, the same steps may fit.
            self._graphs.clear()
            self._steps_left = 0
            torch.cuda.empty_cache()
            return False
        self._steps_left -= cost
        return True

    def _record(self, compute: Compute, shape: Shape, *inputs: Tensor) -> _Graph:
        own, graph = tuple(tensor.to(self._device) for tensor in inputs), torch.cuda.CUDAGraph()
        torch.cuda.synchronize(self._device)
        torch.cuda.empty_cache()  # for the memory of graphs is apart
        with torch.cuda.stream(self._stream):
            graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
            try:
                made = compute(shape, *own)
            except BaseException:
                with contextlib.suppress(RuntimeError):  # of what was recorded so far
                    graph.capture_end()
                raise
            graph.capture_end()
        return graph, own, made
