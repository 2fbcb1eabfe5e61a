"""Which of Ray's modes a session talks in: with this account's token, or without.

A cluster asks for a token where `ray start` found one, and a driver joins it only in the same mode: one that
offers a token to a cluster without is let in, but turns the cluster's workers away.
"""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray.exceptions import AuthenticationError, RayError

from lasat_ray.errors import UserError

_MODE = "RAY_AUTH_MODE"


@contextmanager
def authentication(address: str | None) -> Iterator[None]:
    """Ray's mode for the block: a private cluster (None) has a token, others are asked.

    A mode that the user has set in the environment stays. Raises UserError if the cluster at ``address``
    wants a token that is not ours, or does not answer.
    """
    if _MODE in os.environ:
        if address and not address.startswith("ray://") and not _lets_us_in(address):
            raise _refused(address)
        yield
        return
    try:
        _set_mode(_mode_of(address))
        yield
    finally:
        _set_mode(None)


def _mode_of(address: str | None) -> str:
    if address is None:
        return "token"
    if address.startswith("ray://"):  # Ray's client server cannot be asked
        return "token" if _has_token() else "disabled"
    _set_mode("disabled")
    if _lets_us_in(address):
        return "disabled"
    _set_mode("token")
    if _lets_us_in(address):
        return "token"
    raise _refused(address)


def _set_mode(mode: str | None) -> None:
    os.environ.pop(_MODE, None)
    if mode:
        os.environ[_MODE] = mode
    _raylet("Config").initialize("")  # Ray reads the variable when it is first imported, and here


def _raylet(name: str) -> Any:
    """A class of Ray's own that has no public door; UserError where this version has none."""
    try:
        return getattr(importlib.import_module("ray._raylet"), name)
    except (ImportError, AttributeError) as error:
        remedy = f"set {_MODE} to token or disabled, or install ray 2.60"
        raise UserError(
            f"ray: version {ray.__version__} lacks {name}, which tells its mode; {remedy}"
        ) from error


def _has_token() -> bool:
    return bool(_raylet("AuthenticationTokenLoader").instance().has_token(ignore_auth_mode=True))


def _lets_us_in(address: str) -> bool:
    """Whether the cluster takes what this mode offers; UserError if no cluster answers, after 40 s."""
    # A token once read is asked of the cluster's workers too, so look for it in this mode alone; a client of
    # this mode without one ends the process.
    if os.environ[_MODE].lower() == "token" and not _has_token():
        return False
    client = _raylet("GcsClient")
    try:
        with _errors_unheard():
            client(address=address)
    except AuthenticationError:
        return False
    except RayError as error:
        told = str(error).splitlines()[0].rstrip(".")
        remedy = "give the address that `ray start --head` told"
        raise UserError(f"--address: no Ray cluster is at '{address}' ({told}); {remedy}") from error
    return True


def _refused(address: str) -> UserError:
    remedy = "set RAY_AUTH_TOKEN to it, or copy it to ~/.ray/auth_token"
    return UserError(f"--address: '{address}' wants its own token, not ours; {remedy}")


@contextmanager
def _errors_unheard() -> Iterator[None]:
    """Ray writes each refusal to stderr too, past Python."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as unheard:
        os.dup2(unheard.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
