"""Evaluations of one net side by side: each in a folder of its own, the most complete one on top.

``OUT/evaluations/100-images-3f2a9c81d0e4/`` holds one evaluation for good. ``OUT/evaluation.json`` and the
files beside it are those of the evaluation that counts.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lasat_ray.config.files import check_regular
from lasat_ray.errors import UserError
from lasat_ray.evaluation.spec import digest
from lasat_ray.runs.checkpoint import write_atomically

REPORT, FLAGS, IMAGES, EVALUATIONS = "evaluation.json", "flags.npz", "images", "evaluations"
_NAME = re.compile(r"\d+-images-[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class Kept:
    """One evaluation: its file and what stands in it."""

    path: Path
    report: dict[str, Any]


def own_folder(out: Path, n: int, settings: object) -> Path:
    """Where an evaluation of ``n`` images stays; the same ``settings`` (anything JSON holds) share one."""
    return out / EVALUATIONS / f"{n}-images-{digest(settings)[:12]}"


def owner_of(file: Path) -> Path:
    """The folder that an evaluation.json belongs to: OUT, for the one on top and for those below it."""
    folder = file.parent
    below = folder.parent.name == EVALUATIONS and _NAME.fullmatch(folder.name)
    return folder.parent.parent if below else folder


def read_kept(out: Path) -> list[Kept]:
    """Every whole evaluation of a folder, the one on top first; damaged files are left out."""
    files = [out / REPORT, *sorted(out.glob(f"{EVALUATIONS}/*/{REPORT}"))]
    return [kept for file in files if owner_of(file) == out and (kept := read_one(file))]


def read_one(file: Path) -> Kept | None:
    """An evaluation, None where the file is missing or holds none."""
    with suppress(OSError, ValueError, UserError):
        check_regular(file)
        report = json.loads(file.read_text(encoding="utf-8"))
        if isinstance(report, dict) and isinstance(report.get("attacks"), dict):
            return Kept(file, report)
    return None


def that_counts(kept: Sequence[Kept]) -> Kept | None:
    """The evaluation to quote: of the checkpoint as it is now, of the best one, of the run's own images and
    budget rather than of others, and among those the one that asked the net most often; None of none."""
    newest: dict[str, str] = {}
    for one in sorted(kept, key=_started):
        newest[_checkpoint(one)] = str(one.report.get("weights_sha256"))

    def rank(one: Kept) -> tuple[bool, bool, int, float, str]:
        present = newest[_checkpoint(one)] == str(one.report.get("weights_sha256"))
        best = _checkpoint(one) != "last.safetensors"
        return present, best, closeness(one.report), passes(one), _started(one)

    return max(kept, key=rank, default=None)


def closeness(report: dict[str, Any]) -> int:
    """3: attacks on the images and with the budget that the run itself names (or it names none), 2: with
    another budget, 1: no attack on them, 0: other images."""
    own, threat = report.get("own"), threat_of(report)
    if not isinstance(own, dict):
        return 3
    if own.get("dataset") != report.get("dataset"):
        return 0
    return 1 if not threat["eps"] else 3 if own == {"dataset": own["dataset"], **threat} else 2


def threat_of(report: dict[str, Any]) -> dict[str, Any]:
    """``{"norm": "linf", "eps": 8/255}`` of its attacks; eps 0 where nothing was attacked."""
    entries = [entry for entry in report["attacks"].values() if isinstance(entry, dict)]
    attacked = [{"norm": entry.get("norm"), "eps": entry["eps"]} for entry in entries if entry.get("eps")]
    return attacked[0] if attacked else {"norm": None, "eps": 0.0}


def passes(kept: Kept) -> float:
    """Images passed through the net, forward and backward, by all attacks: how much was asked of it."""
    names = ("forward_passes_per_image", "backward_passes_per_image")
    with suppress(TypeError, ValueError, AttributeError):
        found = (entry.get(name, 0) for entry in kept.report["attacks"].values() for name in names)
        return float(kept.report.get("n", 0)) * float(sum(found))
    return 0.0


def place_told(out: Path, report: dict[str, Any]) -> str:
    """Where a report lies that was just written, and which one stands for the net if this one does not."""
    told = json.loads(json.dumps(report))
    file = next(one.path for one in read_kept(out) if one.report == told)
    if file.parent == out or not (top := read_one(out / REPORT)):
        return f"report: {file}"
    names = ", ".join(top.report["attacks"])
    return f"report: {file}; {out / REPORT} stays the one of {top.report.get('n')} images with {names}"


def _checkpoint(kept: Kept) -> str:
    return str(kept.report.get("checkpoint"))


def _started(kept: Kept) -> str:
    return str(kept.report.get("started", ""))


def adopt(out: Path) -> None:
    """Give an evaluation that lies on top alone, as earlier versions left it, a folder of its own."""
    top = read_one(out / REPORT)
    if top is None or any(one.report == top.report for one in read_kept(out)[1:]):
        return
    n = top.report.get("n")
    folder = own_folder(out, n if isinstance(n, int) else 0, top.report)
    folder.mkdir(parents=True, exist_ok=True)
    _copy_files(out, folder)


def publish(out: Path) -> Kept | None:
    """Lay the evaluation that counts on top; it is returned with its file there."""
    best = that_counts(read_kept(out))
    if best is None or best.path.parent == out:
        return best
    for file in (out / IMAGES).glob("*.safetensors"):  # of the one that counted before, which keeps its own
        if any(out.glob(f"{EVALUATIONS}/*/{IMAGES}/{file.name}")):
            file.unlink()
    _copy_files(best.path.parent, out)
    return Kept(out / REPORT, best.report)


def _copy_files(source: Path, target: Path) -> None:
    """The files of one evaluation, images by a second name where the disk can; the report last."""
    for file in sorted((source / IMAGES).glob("*.safetensors")):
        (target / IMAGES).mkdir(exist_ok=True)
        _link(file, target / IMAGES / file.name)
    for name in (FLAGS, REPORT):
        if (source / name).is_file():
            write_atomically(target / name, (source / name).read_bytes())


def _link(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
