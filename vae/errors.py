"""Errors that a user can mend, and how the commands show them."""

import sys
from collections.abc import Callable


class UserError(ValueError):
    """A user's mistake, told in one line: the place, the rule, what was found, the way out."""


class OtherRunError(UserError):
    """A checkpoint is of another run, such as one of an earlier version of the code."""


def exit_code(command: Callable[[], None]) -> int:
    """Runs a command; a `UserError`, or what a file system refuses, becomes one line on stderr and exit code 2."""
    try:
        command()
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    except OSError as error:
        if error.strerror is None:
            raise
        where = f"{error.filename}: " if error.filename is not None else ""
        sys.stderr.write(f"error: {where}{error.strerror}.\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return 130
    return 0
