"""From nothing to a robust net of somebody's own images: an empty environment, an installation, one script.

``python -m benchmarks.speed.first_net --record first_net`` makes a clone of the commit and an empty
environment in a folder that is removed afterwards, writes scikit-learn's digits there as image files, and
times ``uv pip install .`` and ``examples/robust_net_of_own_images.py``. Packages come from uv's cache where
it has them: run it once before, unless downloads are to be timed too.
"""

from __future__ import annotations

import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from PIL import Image
from sklearn.datasets import load_digits

from benchmarks.common import ROOT, made_by, read_record, write_record

EXAMPLE = "examples/robust_net_of_own_images.py"


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to time."""

    minutes: float = 0.5
    """Training."""
    record: str | None = None
    """Name of the file in benchmarks/records; None writes none."""


def write_digits(place: Path) -> int:
    """scikit-learn's digits as PNG files, every fifth a test image; how many."""
    digits = load_digits()
    for n, (image, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        folder = place / ("train" if n % 5 else "test") / f"digit-{label}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray((image / 16 * 255).round().astype(np.uint8)).save(folder / f"{n}.png")
    return len(digits.target)


def timed(command: list[str], cwd: Path) -> tuple[dict[str, float], str]:
    """Seconds by the clock and of the processor, and what was printed; CalledProcessError where it failed."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    environment = {
        name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")
    }
    done = subprocess.run(command, cwd=cwd, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return {"seconds": round(time.perf_counter() - began, 1), "cpu_seconds": round(used, 1)}, done.stdout


def accuracies(told: str) -> dict[str, float]:
    """Attack -> accuracy in [0,1], from the example's lines."""
    return {
        name: float(share) / 100 for name, share in re.findall(r"^([\w-]+): ([\d.]+)% of", told, flags=re.M)
    }


def measure(options: Options, place: Path) -> dict[str, Any]:
    """Clone, environment, installation, the example."""
    clone, python = place / "clone", place / "venv" / "bin" / "python"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
    images = write_digits(place / "photos")
    environment, _ = timed([sys.executable, "-m", "venv", "--without-pip", str(place / "venv")], place)
    uv = str(Path(sys.executable).with_name("uv"))
    installed, _ = timed([uv, "pip", "install", "--quiet", "--python", str(python), "."], clone)
    words = [str(place / "photos"), "--minutes", str(options.minutes), "--out", str(place / "run")]
    trained, told = timed([str(python), EXAMPLE, *words], clone)
    return {
        "images": images,
        "minutes": options.minutes,
        "load_average": round(os.getloadavg()[0], 1),
        "environment": environment,
        "install": installed,
        "example": trained,
        "accuracy": accuracies(told),
    }


def told() -> dict[str, str]:
    """Mark -> the sentence of docs/own/data.md."""
    r = read_record("first_net")
    parts = [r["environment"], r["install"], r["example"]]
    wall, used = (sum(part[kind] for part in parts) for kind in ("seconds", "cpu_seconds"))
    clean, pgd, apgd = (f"{100 * r['accuracy'][name]:.1f} %" for name in ("clean", "pgd-50", "apgd-ce"))
    sentence = (
        f"Measured once: {wall:.0f} seconds from an empty environment to the last line, "
        f"{r['install']['seconds']:.0f} of them the installation with packages in uv's cache, "
        f"{r['example']['seconds']:.0f} the script; {used:.0f} seconds of processor time, on "
        f"{r['cpus']} cores that had other work too (load {r['load_average']:g}). {r['images']:,} images "
        f"of 8x8, {r['minutes']:g} minutes of training; of the test images {clean} are right, {pgd} "
        f"under PGD-50 and {apgd} under APGD at 8/255. `python -m benchmarks.speed.first_net`; record "
        "`benchmarks/records/first_net.json`."
    )
    return {"first_net": sentence}


def main() -> None:
    options = tyro.cli(Options, description=__doc__)
    with tempfile.TemporaryDirectory(prefix="lasat-first-net-") as place:
        found = measure(options, Path(place))
    print(found)
    write_record(
        options.record,
        {**made_by("benchmarks.speed.first_net", *sys.argv[1:]), "cpus": os.cpu_count(), **found},
    )


if __name__ == "__main__":
    main()
