"""What travels with a net out of its run: classes, image size, normalization, budget, measured accuracies."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from torch import nn

from lasat_ray import __version__
from lasat_ray.config.json_io import read_config
from lasat_ray.errors import UserError
from lasat_ray.evaluation.kept import read_kept, that_counts
from lasat_ray.evaluation.report import weights_sha256
from lasat_ray.evaluation.subject import dataset_label
from lasat_ray.runs.folder import RunFolder

TRAVELS = (
    *("model", "num_classes", "class_names", "image_shape", "precision", "mean", "std", "norm", "eps"),
    *("accuracies", "accuracies_of", "dataset", "method", "lasat_ray"),
)
"""Names in the metadata of ONNX files, the header of safetensors, and a Hugging Face folder's config.json."""


def carried(net: nn.Module, card: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """The card of a net with all of ``TRAVELS`` that is known; ``file``: what it was read from.

    ``accuracies``: rows of name, accuracy and interval in [0,1], n, norm, eps, of the evaluation that counts
    where it is of these very weights, else of the end of training; ``accuracies_of`` says which.
    """
    told = {"lasat_ray": __version__, **card}
    buffers = dict(net.named_buffers())
    told |= {name: [float(v) for v in buffers[name].flatten()] for name in ("mean", "std") if name in buffers}
    budget = card.get("evaluation")
    if isinstance(budget, Mapping):
        told |= {"norm": budget.get("norm"), "eps": budget.get("eps")}
    folder = file.parent.parent
    if file.parent.name == "checkpoints" and (folder / "config.json").is_file():
        with suppress(UserError):  # a net may be used whose run was written by another version
            config = read_config(folder / "config.json", complete=True)
            told |= {
                "dataset": dataset_label(config.dataset),
                "method": f"{config.method} ({config.strategy})",
            }
            told |= _measured(net, folder, file)
    return told


def header(card: Mapping[str, Any]) -> dict[str, str]:
    """``TRAVELS`` as words: strings as they are, everything else as JSON."""
    known = {name: card[name] for name in TRAVELS if card.get(name) is not None}
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in known.items()}


def _measured(net: nn.Module, folder: Path, file: Path) -> dict[str, Any]:
    """The accuracies of these weights, and where they come from; nothing where none was measured."""
    kept = [one for one in read_kept(folder) if one.report.get("checkpoint") == file.name]
    same = weights_sha256(net) if kept else ""
    counts = that_counts([one for one in kept if one.report.get("weights_sha256") == same])
    if counts is not None:
        with suppress(KeyError, TypeError, ValueError, AttributeError):
            return _evaluated(counts.report)
    return _summarized(folder, file)


def _evaluated(report: dict[str, Any]) -> dict[str, Any]:
    images = report.get("images", {}).get("told", f"{report['n']} test images")
    rows = [
        {
            "name": name,
            "accuracy": float(entry["accuracy"]),
            "interval": [float(side) for side in entry["interval"]],
            "n": int(report["n"]),
            "norm": entry.get("norm") if entry.get("eps") else None,
            "eps": float(entry.get("eps") or 0.0),
        }
        for name, entry in [*report["attacks"].items(), ("worst case", report["worst_case"])]
    ]
    verdict = "" if report["sanity"]["verdict"] == "passed" else "; unreliable by its sanity check"
    return {"accuracies": rows, "accuracies_of": f"{images} of {report.get('dataset')}{verdict}"}


def _summarized(folder: Path, file: Path) -> dict[str, Any]:
    """The figures at the end of training, which are those of the net that the run deploys."""
    summary = None
    with suppress(UserError):
        summary = RunFolder(folder).summary()
    if summary is None or (summary.get("net") == "best on validation") != (file.name == "best.safetensors"):
        return {}
    threat = {"norm": summary["norm"], "eps": summary["eps"]}
    rows = [{"name": "clean", "accuracy": summary["clean_acc"], "norm": None, "eps": 0.0}]
    for name, value in summary.items():
        if name.startswith("robust_acc_pgd"):
            rows.append({"name": f"pgd-{name.removeprefix('robust_acc_pgd')}", "accuracy": value, **threat})
    n = summary["n_test"]
    return {
        "accuracies": [{**row, "n": n} for row in rows],
        "accuracies_of": f"{n} test images at the end of training",
    }
