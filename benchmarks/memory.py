"""Memory of a sweep's processes while it runs, by sampling."""

import statistics
import threading
from types import TracebackType
from typing import Any, Self

import psutil

_SECONDS = 0.5
_MIB = 2**20
_ACTORS = ("ray::VaeTrial", "ray::ResourceTrainable")  # how Ray titles the processes of `sweep.trial`


class MemoryWatch:
    """Samples the resident memory of a driver and of its trial actors.

    Args:
        pid: of the driver.
    """

    def __init__(self, pid: int) -> None:
        self._driver = psutil.Process(pid)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._while_searching: list[float] = []
        self.peak_actor = 0.0  # MiB, shared pages of the object store included

    def __enter__(self) -> Self:
        """Starts sampling."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends sampling."""
        self._stop.set()
        self._thread.join()

    @property
    def idle_driver(self) -> float | None:
        """Its median while trials run and it waits, MiB."""
        return statistics.median(self._while_searching) if self._while_searching else None

    def _watch(self) -> None:
        while not self._stop.wait(_SECONDS):
            try:
                driver = self._driver.memory_info().rss / _MIB
                actors = [rss for child in self._driver.children(recursive=True) if (rss := _actor_rss(child))]
            except psutil.Error:
                continue  # it has just ended
            if actors:
                self._while_searching.append(driver)
                self.peak_actor = max(self.peak_actor, *actors)


def _actor_rss(process: Any) -> float:
    """Of a trial actor, MiB; 0 for any other process."""
    try:
        title = "".join(process.cmdline())
        return process.memory_info().rss / _MIB if title.startswith(_ACTORS) else 0.0
    except psutil.Error:
        return 0.0
