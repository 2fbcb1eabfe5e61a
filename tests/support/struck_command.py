"""``lasat_ray.train`` in a process of its own, killed before a chosen write of files."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from lasat_ray import train

WRITES = ("os.mkdir", "os.rename", "os.remove", "os.truncate")
"""What Python tells its audit hooks of before it is done; beside files that are opened for writing."""
_PRELOADED = ("lasat_ray.train", "lasat_ray.cluster.local", "torch._dynamo", "tensorboardX", "tyro._backends")


def run_command(
    argv: Sequence[str], folder: Path, below: tuple[str, ...], strike: int | None, seconds: float
) -> int:
    """The exit status of the command in ``folder``, killed before its write number ``strike`` to paths that
    begin as one of ``below``. Its words are in told.txt there; where it ran through, writes.txt has the
    number of its writes. AssertionError where it takes more than ``seconds``."""
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(list(_PRELOADED))
    process = server.Process(target=_command, args=(list(argv), folder, below, strike))
    process.start()
    process.join(seconds)
    assert process.exitcode is not None, "the command hangs"
    return process.exitcode


def _command(argv: list[str], folder: Path, below: tuple[str, ...], strike: int | None) -> None:
    os.chdir(folder)
    torch.set_num_threads(1)
    sys.argv = ["lasat-train", *argv]
    seen = 0

    def count(event: str, args: tuple[Any, ...]) -> None:
        nonlocal seen
        writing = event in WRITES or (event == "open" and isinstance(args[1], str) and args[1][0] in "wa")
        if writing and str(args[0]).startswith(below):
            seen += 1
            if seen == strike:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
    with open("told.txt", "w") as told:
        os.dup2(told.fileno(), 1)
        os.dup2(told.fileno(), 2)
        status = train.main()
    if strike is None:
        (folder / "writes.txt").write_text(str(seen))
    os._exit(status)
