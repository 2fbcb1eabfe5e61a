"""Outside code by name: ``module:attribute``, named by the user and by nobody else."""

from __future__ import annotations

import importlib
import os
import sys
import sysconfig
import traceback
from pathlib import Path
from typing import Any

from lasat_ray.errors import UsageError, UserError

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
    try:
        return getattr(importlib.import_module(module_name), attribute)
    except ImportError as error:
        remedy = "put it on PYTHONPATH or into the present folder"
        raise UsageError(f"--{field}: cannot import '{module_name}' ({error}); {remedy}") from error
    except AttributeError as error:
        raise UsageError(f"--{field}: '{module_name}' has no '{attribute}'; name what it defines") from error
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # sys.exit too
        kind = type(error).__name__
        raise UsageError(
            f"--{field}: importing '{module_name}' raised {kind}: {error}; mend that file"
        ) from error


def blamed(error: BaseException) -> UserError | None:
    """The error of code from outside in one line that names it; None where no such code was running.

    Code from outside is what was called from this package, directly or by a library, and belongs neither to
    it nor to installed packages.
    """
    within, last = False, None
    for frame, line in traceback.walk_tb(error.__traceback__):
        file = frame.f_code.co_filename
        if file.startswith(_PACKAGE):
            within, last = True, None
        elif within and not file.startswith(("<", *_INSTALLED)):
            last = f"{file} line {line}, in {frame.f_code.co_name}"
    if last is None:
        return None
    return UserError(f"{last}: raised {type(error).__name__}: {error}; correct that code")
