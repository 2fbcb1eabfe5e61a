"""``python -m tests.support.run_pretended -m MODULE ARGUMENTS``: the program on a GPU that pretends."""

from __future__ import annotations

import runpy
import sys

from tests.support.pretended_gpu import pretended_gpu


def main() -> None:
    module = sys.argv[2]
    sys.argv = sys.argv[2:]
    with pretended_gpu():
        runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
