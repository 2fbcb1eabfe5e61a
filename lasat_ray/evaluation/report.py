"""From finished parts to ``evaluation.json``, the per-image flags and the adversarial images."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn

from lasat_ray.data import Images
from lasat_ray.errors import UsageError
from lasat_ray.evaluation.kept import FLAGS, IMAGES, REPORT
from lasat_ray.evaluation.part import Part
from lasat_ray.evaluation.progress import JobQueue
from lasat_ray.evaluation.sanity import Check, judge
from lasat_ray.evaluation.spec import AttackSpec
from lasat_ray.evaluation.statistics import wilson
from lasat_ray.runs.checkpoint import raw_bytes, write_atomically


def weights_sha256(net: nn.Module) -> str:
    """sha256 over the names, types, shapes and bytes of all weights and buffers."""
    total = hashlib.sha256()
    for name, tensor in sorted(net.state_dict().items()):
        total.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        total.update(raw_bytes(tensor))
    return total.hexdigest()


def images_sha256(images: Images) -> str:
    """sha256 over pixels and labels in their order."""
    total = hashlib.sha256(str(list(images.x.shape)).encode())
    for tensor in (images.x, images.y):
        total.update(tensor.contiguous().numpy().data)
    return total.hexdigest()


def build_report(queue: JobQueue, facts: dict[str, Any]) -> dict[str, Any]:
    """The whole report; ``facts`` (weights_sha256, versions, ...) are copied into it.

    ``accuracy`` counts an image that is right without any attack and on the attack's image; with
    the worst case asked for, it counts what this attack and all before it left.
    """
    suite = queue.suite
    shared = {"versions": facts["versions"], "weights_sha256": facts["weights_sha256"]}
    attacks = {spec.name: {**_entry(queue, spec), **shared} for spec in suite.main_attacks()}
    survivors = torch.ones(suite.n, dtype=torch.bool)
    for spec in suite.main_attacks():
        survivors &= flags(queue, spec)
    return {
        **facts,
        "n": suite.n,
        "seed": suite.seed,
        "chunk_size": suite.chunk_size,
        "attacks": attacks,
        "worst_case": {
            "accuracy": int(survivors.sum()) / suite.n,
            "n": suite.n,
            "interval": wilson(int(survivors.sum()), suite.n),
            "attacks": list(attacks),
            "cumulative": suite.worst_case,
        },
        "sanity": _sanity(queue),
    }


def flags(queue: JobQueue, spec: AttackSpec) -> Tensor:
    """[n] bool: robust against this attack, in the order of the test images."""
    return torch.cat([part.robust for part in _parts(queue, spec)])


def _parts(queue: JobQueue, spec: AttackSpec) -> list[Part]:
    jobs = sorted((job for job in queue.parts if job.spec == spec), key=lambda job: job.first)
    return [queue.parts[job] for job in jobs]


def _entry(queue: JobQueue, spec: AttackSpec) -> dict[str, Any]:
    parts, n = _parts(queue, spec), queue.suite.n
    robust = sum(int(part.robust.sum()) for part in parts)
    entry: dict[str, Any] = {
        "accuracy": robust / n,
        "n": n,
        "interval": wilson(robust, n),
        "eps": spec.eps,
        "norm": spec.norm,
        "seconds": sum(part.seconds for part in parts),
        "forward_passes_per_image": sum(part.forward for part in parts) / n,
        "backward_passes_per_image": sum(part.backward for part in parts) / n,
        "mean_loss": float(torch.cat([part.loss for part in parts]).double().mean()),
    }
    if spec.num_steps:
        entry |= {"num_steps": spec.num_steps, "step_size": spec.step_size, "restarts": spec.restarts}
        entry |= {"stop_early": spec.stop_early}
        if not spec.stop_early:
            entry["accuracy_any_step"] = sum(int(part.robust_always.sum()) for part in parts) / n
    if told := [line for part in parts for line in part.warnings]:
        entry["warnings"] = list(dict.fromkeys(told))
    return entry


def _sanity(queue: JobQueue) -> dict[str, Any]:
    specs = [spec for spec in queue.suite.attacks if spec.sanity]
    if not specs:
        return {"verdict": "unreliable", "reasons": ["the sanity check was left out"], "n": 0, "checks": {}}
    # With the worst case asked for, an attack meets only what the one before left.
    asked = [] if queue.suite.worst_case else queue.suite.main_attacks()
    checks: list[Check] = judge(queue.parts, {spec.name: flags(queue, spec) for spec in asked})
    reasons = [f"{check.reason} ({check.found})" for check in checks if not check.passed]
    return {
        "verdict": "unreliable" if reasons else "passed",
        "reasons": reasons,
        "n": specs[0].limit,
        "checks": {check.name: check.to_json() for check in checks},
        "passes_per_image": _sanity_cost(queue, specs[0].limit or queue.suite.n),
    }


def _sanity_cost(queue: JobQueue, n: int) -> float:
    return sum(part.forward + part.backward for job, part in queue.parts.items() if job.spec.sanity) / n


def write_report(
    out: Path, report: dict[str, Any], queue: JobQueue, images: Images, rows: Tensor | None = None
) -> None:
    """evaluation.json, flags.npz (index, label, one bool array an attack) and images/ATTACK.safetensors.

    ``rows`` [n]: which of the images that were handed over these are; None stands for all.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--out: cannot make '{out}' ({error.strerror}); choose another folder") from error
    n, specs = queue.suite.n, queue.suite.main_attacks()
    index = np.arange(n) if rows is None else rows.numpy()
    arrays = {"index": index, "label": images.y[:n].numpy()}
    arrays |= {spec.name: flags(queue, spec).numpy() for spec in specs}
    packed = io.BytesIO()
    np.savez_compressed(packed, **arrays)  # type: ignore[arg-type]
    write_atomically(out / FLAGS, packed.getvalue())
    if queue.suite.save_images:
        (out / IMAGES).mkdir(exist_ok=True)
        for spec in specs:
            x_adv = torch.cat([part.x_adv for part in _parts(queue, spec) if part.x_adv is not None])
            write_atomically(out / IMAGES / f"{spec.name}.safetensors", save({"x_adv": x_adv}))
    write_atomically(out / REPORT, (json.dumps(report, indent=2, allow_nan=False) + "\n").encode())
