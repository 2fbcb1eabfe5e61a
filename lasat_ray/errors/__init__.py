"""The one error a user is meant to read: a single line, and the exit status that goes with it."""

from __future__ import annotations

import errno
import math
from collections.abc import Mapping

REMEDIES = {
    errno.EMFILE: "raise the limit of open files, ulimit -n",
    errno.ENFILE: "end other programs, the machine has no file handle left",
    errno.ENOSPC: "free space (or inodes) on that disk",
    errno.EDQUOT: "free space, your quota is used up",
    errno.EROFS: "make that disk writable, or name a folder elsewhere",
    errno.EACCES: "make it accessible, or name another",
    errno.ENOMEM: "free memory, or use smaller settings",
    errno.EAGAIN: "end other programs, or raise the limit of processes, ulimit -u",
}
"""What helps where the machine refuses a file."""


class UserError(ValueError):
    """Bad input or an unmet need of the machine, told in one line: field or file, value, remedy.

    Commands print it without a traceback and exit with ``status``: 2 for usage (a name, range or
    combination that can be corrected on the command line), 1 for run time (a file, a machine).
    """

    status = 1

    def __init__(self, told: str) -> None:
        super().__init__(one_line(told))  # a word of the command line or of a file may hold line breaks


class UsageError(UserError):
    """A setting that is wrong before anything ran; exit status 2, nothing written."""

    status = 2


class Fallback(RuntimeWarning):
    """A setting that holds, but slower or coarser than asked; commands show it as one line."""


def told_elsewhere(message: str, status: int) -> UserError:
    """An error that another process told as message and exit status."""
    error = UsageError(message) if status == UsageError.status else UserError(message)
    error.status = status
    return error


def not_made(folder: object, error: OSError) -> UsageError:
    """The error for a folder of --out that the machine did not let us make."""
    remedy = REMEDIES.get(error.errno or 0, "choose another folder")
    return UsageError(f"--out: cannot make '{folder}' ({error.strerror}); {remedy}")


def not_written(place: object, error: OSError, *, then: str = "") -> UserError:
    """The error for a file or folder that the machine did not let us write; ``then``: how to go on, in a
    run that is kept."""
    missing = error.errno == errno.ENOENT
    usual = "make its folder first" if missing else "free space or make the folder writable"
    remedy = REMEDIES.get(error.errno or 0, usual)
    return UserError(f"{place}: cannot be written ({error.strerror or error}); {remedy}{then}")


def unknown_name(field: str, value: str, allowed: object) -> UsageError:
    """The error for a name that is not in its dict; lists what is."""
    names = ", ".join(sorted(str(name) for name in allowed))  # type: ignore[attr-defined]
    return UsageError(f"{field}: '{value}' is unknown; choose one of: {names}")


def refusal(option: str, value: object, what: str, remedy: str) -> UsageError:
    """The one line about a setting: the option, its value, what is wrong with it, and the way out."""
    return UsageError(f"{option}: {value} {what}; {remedy}")


def check_least(options: Mapping[str, tuple[float, float | None]]) -> None:
    """UsageError for the first option, by its name without dashes, whose number is below its least value or
    infinite; None stands for one that was not given."""
    for name, (least, value) in options.items():
        if value is not None and not least <= value < math.inf:
            raise UsageError(f"--{name}: {value:g} is out of range; give {least:g} or more")


def install(extra: str) -> str:
    """How the packages of an extra are had: nothing is published, so from a clone."""
    return f"pip install '.[{extra}]' in a clone of lasat-ray"


def described(error: BaseException) -> str:
    """``Kind: message`` of an exception in one line, whatever its message does; a group tells its first."""
    kind, told = type(error).__name__, message_of(error)
    if isinstance(error, BaseExceptionGroup):
        return f"{kind} of {len(error.exceptions)}, the first {described(error.exceptions[0])}"
    return one_line(f"{kind}: {told}" if told else kind)


def message_of(error: BaseException) -> str:
    """``str(error)``, or what that raises: exceptions of code from outside may be odd."""
    try:
        return str(error)
    except BaseException as odd:
        return f"(its message cannot be shown: {type(odd).__name__})"


def one_line(message: str) -> str:
    """A message as a terminal may show it, whatever file its words come from: one line of readable
    characters, no escape sequences, cut in the middle of more than 2000."""
    words = " ".join(message.split())
    words = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in words)
    return words if len(words) <= 2000 else f"{words[:1000]} ... {words[-990:]}"
