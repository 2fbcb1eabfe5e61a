"""Errors as a program's author reads them: one line that names the argument, not the command's option."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from lasat_ray.errors import UserError
from lasat_ray.plugins import blamed, passes

P = ParamSpec("P")
R = TypeVar("R")
_OPTION = re.compile(r"(?<![\w-])--([a-z][a-z0-9-]*(?:\.[a-z][a-z0-9-]*)?)")
_SWITCHED_OFF = re.compile(r"(?:^|(?<=\.))no_")
_COMMANDS_ALONE = ("help", "help_all", "list_recipes")


def in_python(function: Callable[P, R]) -> Callable[P, R]:
    """``function`` with errors of one line each: those that commands tell, in Python's spelling, and those
    of code from outside with the place where they were raised."""

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except UserError as error:
            told = reworded(error)
        except BaseException as error:
            if passes(error):
                raise
            known = blamed(error)
            if known is None:
                raise
            raise known from error
        raise told

    return call


def reworded(error: UserError) -> UserError:
    """The same error with ``--attack.eps`` written ``attack.eps`` and ``--no-flip`` ``flip=False``."""
    told = type(error)(_OPTION.sub(_spelled, str(error)))
    told.status = error.status
    return told


def _spelled(option: re.Match[str]) -> str:
    name = option[1].replace("-", "_")
    if name in _COMMANDS_ALONE:
        return option[0]
    switched = _SWITCHED_OFF.sub("", name)
    return name if switched == name else f"{switched}=False"
