"""The README's tables are what the committed records say."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def test_readme_tables_are_generated() -> None:
    script = ROOT / "benchmarks" / "readme_tables.py"
    done = subprocess.run([sys.executable, str(script), "--check"], capture_output=True, text=True)
    assert done.returncode == 0, f"run benchmarks/readme_tables.py\n{done.stderr}"


def test_speed_tables_are_generated() -> None:
    script = ROOT / "benchmarks" / "speed_tables.py"
    done = subprocess.run([sys.executable, str(script), "--check"], capture_output=True, text=True)
    assert done.returncode == 0, f"run benchmarks/speed_tables.py\n{done.stderr}"


@pytest.mark.parametrize("name", ["strategy_study", "credit_check"])
def test_the_tables_of_strategy_learning_are_generated(name: str) -> None:
    script = ROOT / "benchmarks" / f"{name}.py"
    done = subprocess.run([sys.executable, str(script), "--check"], capture_output=True, text=True)
    assert done.returncode == 0, f"run benchmarks/{name}.py --render\n{done.stderr}"


def test_the_sweeps_tables_are_generated() -> None:
    script = ROOT / "benchmarks" / "tuning_docs.py"
    done = subprocess.run([sys.executable, str(script), "--check"], capture_output=True, text=True)
    assert done.returncode == 0, f"run benchmarks/tuning_docs.py\n{done.stderr}"
    page = (ROOT / "docs" / "tuning.md").read_text()
    for picture in re.findall(r"\((figures/\w+\.png)\)", page):
        assert (ROOT / "docs" / picture).is_file(), picture
