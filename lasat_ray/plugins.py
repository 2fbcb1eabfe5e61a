"""Outside code by name: ``module:attribute``, named by the user and by nobody else."""

from __future__ import annotations

import importlib
import os
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lasat_ray.errors import UsageError, UserError, described, message_of, one_line
from lasat_ray.errors.interrupts import is_interrupt

_PACKAGE = str(Path(__file__).parent) + os.sep
_INSTALLED = tuple({path + os.sep for path in sysconfig.get_paths().values()})


def search_present_folder() -> None:
    """Let code in the present folder be imported, where an installed command does not look."""
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())


def load_plugin(field: str, spelling: str) -> Any:
    """Import ``module:attribute``; a UsageError in one line where that fails."""
    module_name, _, attribute = spelling.partition(":")
    if not module_name or not attribute:
        raise UsageError(f"--{field}: '{spelling}' is not module:name; write for example my_code:MyClass")
    search_present_folder()
    told = f"--{field}: importing '{module_name}' raised"
    with blaming(lambda raised: UsageError(f"{told} {raised}; mend that file")):
        try:
            module = importlib.import_module(module_name)
        except ImportError as error:
            if of_the_machine(error):
                raise
            remedy = "put it on PYTHONPATH or into the present folder"
            why = message_of(error)
            raise UsageError(f"--{field}: cannot import '{module_name}' ({why}); {remedy}") from error
        found = getattr(module, attribute, _MISSING)
    if found is _MISSING:
        raise UsageError(f"--{field}: '{module_name}' has no '{attribute}'; name what it defines")
    return found


_MISSING = object()


@contextmanager
def blaming(fault: Callable[[str], UserError]) -> Iterator[None]:
    """Inside the block code from outside runs: whatever it raises (sys.exit, a KeyboardInterrupt of its own
    making, what cannot be shown) is ``fault`` of it in words, but for what ``passes``."""
    try:
        yield
    except BaseException as error:
        if passes(error):
            raise
        raise fault(told_of(error)) from error


def passes(error: BaseException) -> bool:
    """Whether an error is not of the code that raised it: Ctrl-C and its like, what is told already, full
    memory and broken hardware."""
    return isinstance(error, UserError) or is_interrupt(error) or of_the_machine(error)


@dataclass(frozen=True, slots=True)
class Plugin:
    """Code from outside under the name that the user gave it: option ``--learner``, name ``mine:Learner``."""

    option: str
    name: str

    @contextmanager
    def call(self, what: str) -> Iterator[None]:
        """Inside the block that code runs, doing ``what``: whatever it raises, sys.exit too, is a UserError
        that names it, with the place where it did, but for what ``passes``."""
        try:
            yield
        except BaseException as error:
            if passes(error):
                raise
            place = _place(error)
            at = f" ({place})" if place else ""
            raise self.fault(f"{what} raised {told_of(error)}{at}") from error

    def fault(self, told: str, remedy: str = "correct that code") -> UserError:
        """``--learner: 'mine:Learner' act returned None; ...``: what is wrong with it, in one line."""
        return UserError(f"{self.option}: '{self.name}' {told}; {remedy}")


def told_of(error: BaseException) -> str:
    """Kind and message of an exception in one line; of one that a loader's worker sent on, its last line."""
    message = message_of(error)
    if "Original Traceback" in message:
        return one_line(message.rstrip().rpartition("\n")[2])[:300]
    return described(error)[:300]


def of_the_machine(error: BaseException) -> bool:
    """Whether memory or hardware gave out, which is nobody's code; by name, since torch may not be loaded."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    words = message_of(error).lower()
    # What C++ says of a thread that has no room; of a file that is locked the system says it too.
    if words.endswith("resource temporarily unavailable") and not isinstance(error, OSError):
        return True
    return bool(kinds & {"MemoryError", "OutOfMemoryError", "AcceleratorError"}) or any(
        said in words for said in _NO_MEMORY
    )


_NO_MEMORY = (
    *("can't allocate memory", "cannot allocate memory", "bad_alloc"),
    *("failed to map segment", "unable to mmap"),  # a library that is being imported
    *("can't start new thread", "thread creation failed", "pthread_create failed"),
)


def shown(value: Any) -> str:
    """What a value from outside is, in a few words: ``torch.float32 of (2, 3)``, ``None``, ``a list``."""
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"{value.dtype} of {tuple(value.shape)}"
    return "None" if value is None else f"a {type(value).__name__}"


def checked_state(state: Any, what: str, plugin: Plugin) -> dict[str, Any]:
    """A state from outside that a checkpoint can hold; UserError naming what it cannot."""
    if not isinstance(state, dict):
        raise plugin.fault(f"{what} returned {shown(state)}", "return a dict")
    if (found := _unsaved(state)) is not None:
        remedy = "keep nested dicts and lists of tensors, numbers and strings"
        raise plugin.fault(f"{what} holds {shown(found)}", remedy)
    return state


def _unsaved(tree: Any) -> Any:
    """The first thing in a state that no checkpoint holds; None where all can be saved."""
    if isinstance(tree, (dict, list, tuple)):
        parts = tree.values() if isinstance(tree, dict) else tree
        return next((found for part in parts if (found := _unsaved(part)) is not None), None)
    tensor = hasattr(tree, "shape") and hasattr(tree, "requires_grad")
    return None if tree is None or tensor or isinstance(tree, (bool, int, float, str)) else tree


def blamed(error: BaseException) -> UserError | None:
    """The error of code from outside in one line that names it; None where no such code was running.

    Code from outside is what was called from this package, directly or by a library, and belongs neither to
    it nor to installed packages.
    """
    last = _place(error)
    if last is None or of_the_machine(error):
        return None
    return UserError(f"{last}: raised {described(error)}; correct that code")


def _place(error: BaseException) -> str | None:
    """File, line and function of the outside code that was running when ``error`` was raised."""
    within, last = False, None
    for frame, line in traceback.walk_tb(error.__traceback__):
        file = frame.f_code.co_filename
        if file.startswith(_PACKAGE):
            within, last = True, None
        elif within and not file.startswith(("<", *_INSTALLED)):
            last = f"{file} line {line}, in {frame.f_code.co_name}"
    return last
