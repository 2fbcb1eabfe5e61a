"""Bad input of every kind, as data: what somebody types, what is wrong with the files, what must be told.

The table of ``docs/reliability.md`` and ``tests/robustness/test_bad_input.py`` are made from ``CASES``.
Commands run in a copy of a small world: ``run`` is a finished run, ``good.npz`` a data set, ``image.png``
an image.
"""

from __future__ import annotations

from tests.robustness.cases.bad_case import Bad
from tests.robustness.cases.bad_files import CHECKPOINTS, DATASETS
from tests.robustness.cases.bad_words import COMMAND_LINES, CONFIGURATIONS, PLUGINS

CASES: dict[str, list[Bad]] = {
    "Configurations": CONFIGURATIONS,
    "Command lines": COMMAND_LINES,
    "Data sets": DATASETS,
    "Run folders, checkpoints, weights": CHECKPOINTS,
    "Plug-ins": PLUGINS,
}
