"""Accuracy under common corruptions by kind and severity (Hendrycks & Dietterich 2019, arXiv 1903.12261).

The images come from files as CIFAR-10-C is published, or are made from a clean test set by
``imagecorruptions-imaug``, which has the strengths of ImageNet-C: on small images these are harder than those
of CIFAR-10-C, and figures of the two do not compare.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, Protocol

import torch
from torch import nn

from lasat_ray import __version__
from lasat_ray.config.json_io import read_json
from lasat_ray.data import Images, load_test_images, ordered_batches
from lasat_ray.data.classes import Classes
from lasat_ray.data.npy import SEVERITIES, image_files
from lasat_ray.errors import UserError
from lasat_ray.evaluation.part import check_logits
from lasat_ray.evaluation.report import images_sha256, weights_sha256
from lasat_ray.evaluation.spec import digest
from lasat_ray.evaluation.statistics import wilson
from lasat_ray.models import dtype_of, frozen_eval
from lasat_ray.runs.checkpoint import write_atomically

REPORT = "corruptions.json"
FORMAT = 1
GROUPS = {
    "noise": ("gaussian_noise", "shot_noise", "impulse_noise"),
    "blur": ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    "weather": ("snow", "frost", "fog", "brightness"),
    "digital": ("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
}
"""The fifteen kinds that the mean is taken over, in the paper's order."""
COMMON = tuple(name for names in GROUPS.values() for name in names)
SEVERITY: range = range(1, SEVERITIES + 1)


class Source(Protocol):
    """Where corrupted images come from: [n] images of each of five severities of each of ``kinds``."""

    @property
    def kinds(self) -> tuple[str, ...]: ...

    def told(self) -> dict[str, str]:
        """What a reader has to know of the images, for the record."""

    def identity(self) -> str:
        """What tells these images from others."""

    def images(self, kind: str, severity: int) -> Images:
        """x uint8 [n,C,H,W], y [n] in the numbering of the net."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FileSource:
    """A folder of KIND.npy, five severities one after the other in each, and labels.npy."""

    folder: Path
    classes: Classes
    image_shape: tuple[int, int, int]
    n_examples: int | None

    @property
    def kinds(self) -> tuple[str, ...]:
        return ordered([file.stem for file in image_files(self.folder)])

    def told(self) -> dict[str, str]:
        return {"from": "files", "where": self.folder.name}

    def identity(self) -> str:
        files = [(self.folder / f"{kind}.npy").stat() for kind in self.kinds]
        known = [(kind, s.st_size, s.st_mtime_ns) for kind, s in zip(self.kinds, files, strict=True)]
        return digest(["files", known, self.n_examples])

    def images(self, kind: str, severity: int) -> Images:
        spelling = f"npz:{self.folder / kind}.npy@{severity}"
        found, _ = load_test_images(
            spelling, self.classes, self.image_shape, root="", max_test=self.n_examples
        )
        if found.image_shape != self.image_shape:
            raise UserError(
                f"{self.folder / kind}.npy: images are {found.image_shape} (C,H,W) and the net takes "
                f"{self.image_shape}; name files made from the set it was trained on"
            )
        return found


def ordered(kinds: list[str]) -> tuple[str, ...]:
    """The paper's order, then all others by name."""
    return (*(k for k in COMMON if k in kinds), *sorted(k for k in kinds if k not in COMMON))


def corruption_table(
    net: nn.Module,
    source: Source,
    *,
    out: Path,
    clean: Images | None,
    seed: int,
    chunk_size: int,
    device: torch.device,
    facts: Mapping[str, Any],
    tell: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Accuracy of ``net`` (x [B,C,H,W] in [0,1] -> logits [B,N]) under each kind and severity.

    ``clean``: the images [n] without corruption, where they are at hand. The report is written into
    ``out`` after each kind, and the same call goes on from there; ``tell`` hears a line a kind. UserError
    where images and net do not work together, or the folder cannot be written.
    """
    sha = weights_sha256(net)
    asked = digest([FORMAT, sha, repr(net), source.identity(), seed, torch.__version__])
    kept = _begun(out / REPORT, asked)
    report: dict[str, Any] = {
        **facts,
        "format": FORMAT,
        "asked": asked,
        "complete": False,
        "data": source.identity(),
        "source": source.told(),
        "seed": seed,
        "weights_sha256": sha,
        "versions": {"lasat_ray": __version__, "torch": torch.__version__},
        "clean": None if clean is None else _cell(net, clean, chunk_size, device),
        "kinds": {},
    }
    for kind in source.kinds:
        if kind not in kept:
            cells = [_cell(net, source.images(kind, s), chunk_size, device) for s in SEVERITY]
            kept[kind] = {"group": group_of(kind), "severities": cells}
        report["kinds"][kind] = kept[kind]
        tell(_line(kind, kept[kind]))
        _write(out, report)
    report |= {"complete": True, "n": kept[source.kinds[0]]["severities"][0]["n"]}
    report["mean"] = means(report["kinds"])
    _write(out, report)
    return report


def _begun(file: Path, asked: str) -> dict[str, Any]:
    """The kinds of a table that the very same call began; none where it is another's or damaged."""
    try:
        known = read_json(file) if file.is_file() else {}
    except UserError:
        return {}
    same = isinstance(known, dict) and known.get("asked") == asked and isinstance(known.get("kinds"), dict)
    return dict(known["kinds"]) if same else {}


def _cell(net: nn.Module, images: Images, chunk_size: int, device: torch.device) -> dict[str, Any]:
    right = 0
    net.to(device)
    with frozen_eval(net), torch.no_grad():
        for batch in ordered_batches(images, batch_size=chunk_size, device=device, dtype=dtype_of(net)):
            logits = net(batch.x)
            check_logits(logits, batch.y, batch.index)
            right += int((logits.argmax(1) == batch.y).sum())
    return {"accuracy": right / len(images), "n": len(images), "interval": wilson(right, len(images))}


def group_of(kind: str) -> str:
    """noise, blur, weather or digital; ``other`` for kinds that are in no mean."""
    return next((group for group, kinds in GROUPS.items() if kind in kinds), "other")


def accuracies(entry: Mapping[str, Any]) -> list[float]:
    """The five accuracies of a kind, in [0,1], weakest corruption first."""
    return [cell["accuracy"] for cell in entry["severities"]]


def means(kinds: Mapping[str, Any]) -> dict[str, Any]:
    """Means over severities and kinds: of all common kinds that there are, and of each group.

    Where none of the common kinds is there, of whatever is.
    """
    counted = [k for k in kinds if k in COMMON] or list(kinds)
    by_kind = {kind: fmean(accuracies(kinds[kind])) for kind in counted}
    groups = {
        group: fmean(by_kind[kind] for kind in names if kind in by_kind)
        for group, names in GROUPS.items()
        if any(kind in by_kind for kind in names)
    }
    mean = fmean(by_kind.values())
    missing = [kind for kind in COMMON if kind not in kinds]
    return {"accuracy": mean, "error": 1 - mean, "kinds": counted, "missing": missing, "groups": groups}


def relative_error(report: Mapping[str, Any], baseline: Path) -> dict[str, Any]:
    """mCE: each kind's summed error over that of another net's table, and the mean of these ratios.

    UserError where ``baseline`` is no whole table of the same images, or that net makes no error.
    """
    base = read_json(baseline) if baseline.is_file() else None
    if not isinstance(base, dict) or not base.get("complete") or not isinstance(base.get("kinds"), dict):
        raise UserError(
            f"--corruption-baseline: '{baseline}' is no finished {REPORT}; make one with --corruptions"
        )
    if base.get("data") != report["data"]:
        raise UserError(
            f"--corruption-baseline: '{baseline}' is about other images; evaluate that net on these ones"
        )
    ratios = {}
    for kind in report["mean"]["kinds"]:
        theirs = sum(1 - a for a in accuracies(base["kinds"][kind]))
        if theirs == 0:
            raise UserError(
                f"--corruption-baseline: '{baseline}' has no error under {kind}; take a weaker net"
            )
        ratios[kind] = sum(1 - a for a in accuracies(report["kinds"][kind])) / theirs
    return {"mce": fmean(ratios.values()), "by_kind": ratios, "model": base.get("model"), "of": baseline.name}


def save_table(out: Path, report: dict[str, Any]) -> None:
    """Write the report anew, whole or not at all."""
    _write(out, report)


def _write(out: Path, report: dict[str, Any]) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out: cannot make '{out}' ({error.strerror}); choose another folder") from error
    write_atomically(out / REPORT, (json.dumps(report, indent=2, allow_nan=False) + "\n").encode())


def _line(kind: str, entry: Mapping[str, Any]) -> str:
    return f"{kind}: {' '.join(f'{100 * a:.1f}' for a in accuracies(entry))} %"


def source_of_clean(images: Images) -> str:
    """What tells the clean images behind made corruptions from others."""
    return images_sha256(images)
