"""Every command of the package, read from pyproject.toml, so that none can be forgotten."""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
SCRIPTS: dict[str, str] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
MODULES = tuple(sorted(place.removesuffix(":main") for place in SCRIPTS.values()))
"""Their modules, each run as ``python -m MODULE``."""
