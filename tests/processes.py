"""Processes that tests start: none outlives its test, and each leaves no open pipe to the next."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Sequence
from typing import Any

_begun: list[subprocess.Popen[str]] = []


def begin(words: Sequence[str], stdout: Any = subprocess.PIPE, **further: Any) -> subprocess.Popen[str]:
    """Starts one, in a group of its own; what it says is one text."""
    options = {"stderr": subprocess.STDOUT, "text": True, "start_new_session": True, **further}
    _begun.append(subprocess.Popen(words, stdout=stdout, **options))
    return _begun[-1]


def kill(process: subprocess.Popen[str]) -> None:
    """Ends one with its group, if it runs still."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def end_all() -> None:
    """Ends those that still run."""
    while _begun:
        process = _begun.pop()
        kill(process)
        if process.stdout is not None:
            process.stdout.close()
