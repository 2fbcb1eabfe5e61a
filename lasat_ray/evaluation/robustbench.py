"""A net in RobustBench's convention: ``models/DATASET/THREAT/NAME.pt`` and its model card beside it.

The weights are a plain state dict under the names of the architecture (for wrn-DEPTH-WIDTH those
of RobustBench's ``WideResNet``, for dm_wrn-DEPTH-WIDTH of its ``DMWideResNet``), without ``module.``;
the card has the keys of ``model_info``.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lasat_ray.config.units import format_budget
from lasat_ray.errors import UserError
from lasat_ray.evaluation.subject import EvaluationTarget
from lasat_ray.models import Classifier
from lasat_ray.runs.checkpoint import write_atomically

THREATS = {"linf": "Linf", "l2": "L2"}


def check_exportable(subject: EvaluationTarget) -> None:
    """UserError for a net whose plain state dict would compute something else."""
    net = subject.net
    if not isinstance(net, Classifier) or net.precision != "fp32":
        raise UserError("--export-robustbench: only nets in fp32 are exported; train with --precision fp32")
    if not _normalizes_itself(subject) and (net.mean.any() or (net.std != 1).any()):
        raise UserError(
            "--export-robustbench: this net normalizes its input, which the plain convention cannot say; "
            "leave --export-robustbench out"
        )


def export_robustbench(
    subject: EvaluationTarget, report: dict[str, Any], folder: Path, name: str | None = None
) -> Path:
    """Write weights and card; returns the card's path. ``name``: the model's id, else made from facts.

    UserError for a net that is not fp32 or normalizes its input: its plain weights compute something else.
    """
    check_exportable(subject)
    assert isinstance(subject.net, Classifier)
    entry = next(reversed(report["attacks"].values()))
    place = Path(str(report["dataset"])) / THREATS[entry["norm"]]
    name = name or _name(report)
    weights: dict[str, Tensor] = {
        key: value.detach().cpu().clone() for key, value in subject.net.backbone.state_dict().items()
    }
    if _normalizes_itself(subject):
        weights |= {"mean": subject.net.mean.cpu().clone(), "std": subject.net.std.cpu().clone()}
    packed = io.BytesIO()
    torch.save(weights, packed)
    card_file = folder / "model_info" / place / f"{name}.json"
    for file, content in (
        (folder / "models" / place / f"{name}.pt", packed.getvalue()),
        (card_file, (json.dumps(model_card(report), indent=2) + "\n").encode()),
    ):
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, content)
    return card_file


def _normalizes_itself(subject: EvaluationTarget) -> bool:
    """RobustBench's ``DMWideResNet`` and ``DMPreActResNet`` keep mean and std [C,1,1] among their weights."""
    return str(subject.facts["model"]).startswith("dm_")


def model_card(report: dict[str, Any]) -> dict[str, Any]:
    """RobustBench's keys; accuracies in percent as strings, "" where this report does not have them.

    ``reported`` stays empty: it is for a paper's own number, and this is a measurement.
    """
    attacks = report["attacks"]
    eps = max((entry["eps"] for entry in attacks.values()), default=0.0)
    return {
        "link": "",
        "name": f"lasat-ray {report.get('method') or report.get('model')}",
        "authors": "",
        "additional_data": bool(report.get("extra_data")),
        "number_forward_passes": 1,
        "dataset": report["dataset"],
        "venue": "Unpublished",
        "architecture": report["architecture"],
        "eps": format_budget(eps),
        "clean_acc": _percent(attacks, "clean"),
        "reported": "",
        "autoattack_acc": _percent(attacks, "aa"),
        "footnote": f"{report['n']} test images; lasat-ray model {report['model']}",
        "unreliable": report["sanity"]["verdict"] != "passed",
    }


def _percent(attacks: dict[str, Any], name: str) -> str:
    return f"{100 * attacks[name]['accuracy']:.2f}" if name in attacks else ""


def _name(report: dict[str, Any]) -> str:
    words = f"{report.get('method') or 'net'} {report['architecture']}"
    return "LasatRay_" + "".join(c if c.isalnum() else "_" for c in words).strip("_")
