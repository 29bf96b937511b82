"""The command `python -m sweep.run` in the pinned space; its arguments are that command's."""

import sys

from benchmarks.contenders.shared import pinned_suggest
from sweep import run, space

if __name__ == "__main__":
    space.suggest = pinned_suggest  # all that differs; `sweep.study` asks for the space by this name
    sys.exit(run.main())
