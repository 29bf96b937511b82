"""What a sweep's result depends on beside its data: versions of software, and the revision of this code."""

import functools
import os
import subprocess
from importlib import metadata
from pathlib import Path

from vae import checkpoint

ROOT = Path(__file__).parents[1]
REVISION = "SWEEP_REVISION"
"""Environment variable with the revision of a copy without `.git`, such as `ray up` makes; `sweep.remote` sets it."""


@functools.cache
def versions() -> dict[str, str]:
    """Versions that a sweep depends on; without those that are not installed, where models alone are trained."""
    found = {name: version for name in ("ray", "optuna") for version in _versions(name)}
    return checkpoint.versions() | found


def _versions(name: str) -> list[str]:
    try:
        return [metadata.version(name)]
    except metadata.PackageNotFoundError:
        return []


def git(*words: str) -> str:
    """What a git command prints in this repository."""
    return subprocess.run(("git", *words), cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()


@functools.cache  # of the code that this process began with
def revision() -> str | None:
    """The git revision, and `+changes` if code departs from it; None where the code is no checkout, nor told of one."""
    if told := os.environ.get(REVISION):
        return told
    if not (ROOT / ".git").exists():  # installed, perhaps below a repository of somebody else's
        return None
    try:
        changed = git("status", "--porcelain", "--", "*.py", "pyproject.toml")
        return git("rev-parse", "--short=12", "HEAD") + ("+changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None
