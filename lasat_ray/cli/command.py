"""How every command ends: its exit status, and one line on stderr for whatever went wrong."""

from __future__ import annotations

import atexit
import errno
import importlib
import resource
import signal
import sys
import traceback
from collections.abc import Callable, Sequence

from lasat_ray.cli.parsing import HelpShown
from lasat_ray.cli.streams import fallbacks_in_one_line, unfailing_output
from lasat_ray.errors import REMEDIES, UserError, described, message_of, one_line
from lasat_ray.errors.interrupts import SIGNALS, ended_by_signals, heard, interrupted, is_interrupt
from lasat_ray.plugins import blamed, of_the_machine


def command(module: str) -> Callable[..., int]:
    """``main(argv=None)`` of a command whose work is ``run(argv)`` of ``module``.

    The module is imported when the command runs, so that what happens while PyTorch loads (memory that gives
    out, Ctrl-C) ends as one line too.
    """

    def main(argv: Sequence[str] | None = None) -> int:
        """The command; exit status 0, 1 (run time) or 2 (usage)."""
        words = sys.argv[1:] if argv is None else argv
        return run_command(lambda: importlib.import_module(module).run(words))

    return main


def run_command(main: Callable[[], int], *, debug: bool | None = None) -> int:
    """Run a command and return its exit status; a failure is one line on stderr.

    A traceback appears only with ``debug``, which by default is --debug on this command line. Only --help
    leaves by SystemExit: of anybody else's it is a mistake.
    """
    debug = "--debug" in sys.argv[1:] if debug is None else debug
    with ended_by_signals(), unfailing_output(), fallbacks_in_one_line():
        try:
            return main()
        except HelpShown:
            raise
        except UserError as error:
            return _fail(str(error), error.status, debug)
        except BaseException as error:
            if is_interrupt(error) or (type(error) is KeyboardInterrupt and blamed(error) is None):
                told = interrupted()
                return _fail(str(told), told.status, debug)
            return _fail(_words(error), 1, debug)


def _words(error: BaseException) -> str:
    """What went wrong, whose it is, and what to do: code from outside, the machine, or we."""
    if (known := blamed(error)) is not None:
        return str(known)
    told = described(error)
    if isinstance(error, OSError) and error.errno is not None:
        unnamed = "memory" if error.errno in (errno.ENOMEM, errno.EAGAIN) else "a file"
        place = error.filename if error.filename is not None else unnamed
        return f"{place}: {error.strerror}; {REMEDIES.get(error.errno, 'check it and its folder')}"
    if of_the_machine(error):
        first = message_of(error).partition("\n")[0]
        return _of_the_machine(error, one_line(f"{type(error).__name__}: {first}"))
    return f"{told} (a bug of ours; rerun with --debug and report what it shows)"


def _of_the_machine(error: BaseException, told: str) -> str:
    kind = type(error).__name__
    if kind == "AcceleratorError":
        return f"--device: the GPU failed ({told}); begin again, with --device cpu if that does not help"
    if kind == "OutOfMemoryError":
        return f"--device: the GPU's memory is full ({told}); use a smaller --batch-size, or --device cpu"
    return f"memory: not enough is free ({told}); {_more_memory(error)}"


def _more_memory(error: BaseException) -> str:
    """What helps: a higher limit of this shell; else, where only a library was loaded or a thread started,
    fewer other programs; else smaller settings."""
    if (limit := resource.getrlimit(resource.RLIMIT_AS)[0]) != resource.RLIM_INFINITY:
        return f"raise the limit ulimit -v, which is {limit // 1024}"
    if isinstance(error, ImportError) or "thread" in str(error):
        return "end other programs, or give this container more memory or processes"
    return "use fewer or smaller images, or a smaller --batch-size"


def _fail(message: str, status: int, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    sys.stderr.write(f"lasat-ray: error: {one_line(message)}\n")
    if heard():  # else a second Ctrl-C would show a traceback of Python's own end
        for number in SIGNALS:
            atexit.register(signal.signal, number, signal.SIG_IGN)
    return status
