"""One attack on one chunk: run it, keep its result, find it again."""

from __future__ import annotations

import os
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lasat_ray.attacks.objectives import cross_entropy
from lasat_ray.data import Images, ordered_batches
from lasat_ray.errors import UserError
from lasat_ray.evaluation.attacks import COMPONENTS, FEW, VERSIONS, Attacked, attack_chunk
from lasat_ray.evaluation.counted import Counted
from lasat_ray.evaluation.spec import Job, Suite
from lasat_ray.models import dtype_of, frozen_eval
from lasat_ray.runs.checkpoint import load_checkpoint, save_checkpoint
from lasat_ray.types import Batch


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """The result of a job on its M images, all tensors on the CPU.

    ``robust`` [M] bool: right on the clean image and on the attack's; ``robust_always`` [M] bool:
    and at every point on the attack's way; ``loss`` [M] cross-entropy on the attack's image;
    ``forward`` / ``backward`` images passed through the net; ``x_adv`` [M,C,H,W] on request.
    """

    robust: Tensor
    robust_always: Tensor
    loss: Tensor
    forward: int
    backward: int
    seconds: float
    pid: int
    warnings: tuple[str, ...] = ()
    measures: dict[str, Tensor] = field(default_factory=dict)
    x_adv: Tensor | None = None


def run_job(
    net: nn.Module, images: Images, job: Job, suite: Suite, alive: Tensor, device: torch.device
) -> Part:
    """Attack the images of a job; those not ``alive`` [M] bool count as broken and are left alone.

    Cost counts the attack and its own check of success; the pass that sorts out images which are
    wrong without any attack is the cost of ``clean``. UserError naming the image when the net
    gives nan or cannot have its label.
    """
    began = time.perf_counter()
    batch = _batch(net, images, torch.tensor(suite.rows(job)), device)
    counted = Counted(net)
    with frozen_eval(counted):
        chosen = _chosen(net, batch, job, alive.to(device))
        found = _attack(counted, batch, job, suite, chosen)
        x_adv = batch.x.clone()
        x_adv[chosen] = found.x_adv.to(x_adv)
        with torch.no_grad():
            loss = cross_entropy(net(x_adv), batch.y)
    robust, always = torch.zeros_like(batch.y, dtype=torch.bool), torch.zeros_like(batch.y, dtype=torch.bool)
    robust[chosen] = ~found.fooled
    always[chosen] = ~(found.fooled if found.fooled_ever is None else found.fooled_ever)
    return Part(
        robust=robust.cpu(),
        robust_always=always.cpu(),
        loss=loss.float().cpu(),
        forward=counted.forward_images,
        backward=counted.backward_images,
        seconds=time.perf_counter() - began,
        pid=os.getpid(),
        warnings=found.warnings,
        measures={name: value.cpu() for name, value in found.measures.items()},
        x_adv=x_adv.cpu() if suite.save_images and not job.spec.sanity else None,
    )


def _batch(net: nn.Module, images: Images, rows: Tensor, device: torch.device) -> Batch:
    """The images of some rows in [0,1], in double precision for a net of that precision."""
    (batch,) = ordered_batches(images, batch_size=len(rows), device=device, dtype=dtype_of(net), rows=rows)
    return batch


def _chosen(net: nn.Module, batch: Batch, job: Job, alive: Tensor) -> Tensor:
    """The places [S] in the batch of the images to attack: alive, and right without any attack."""
    with torch.no_grad():
        logits = net(batch.x)
    check_logits(logits, batch.y, batch.index)
    if job.spec.family not in LEFT_TO_THE_ATTACK:
        alive = alive & (logits.argmax(1) == batch.y)
    return alive.nonzero()[:, 0]


def _attack(net: Counted, batch: Batch, job: Job, suite: Suite, chosen: Tensor) -> Attacked:
    if not len(chosen):
        return Attacked(x_adv=batch.x[chosen], fooled=chosen.bool())
    left = Batch(x=batch.x[chosen], y=batch.y[chosen], index=batch.index[chosen], global_size=len(chosen))
    return attack_chunk(net, left, job.spec, suite.seed, job.chunk)


LEFT_TO_THE_ATTACK = ("clean", "probe", *VERSIONS, *(name + FEW for name in VERSIONS), *COMPONENTS)
"""Families that are given misclassified images too: AutoAttack's package sorts them out itself, and
its random numbers stay those of a direct call."""


def count_outputs(net: nn.Module, images: Images) -> int:
    """How many classes a net tells apart, by its logits of the first image. UserError as ``run_job``."""
    device = next((value.device for value in net.parameters()), torch.device("cpu"))
    batch = _batch(net, images, torch.zeros(1, dtype=torch.int64), device)
    with torch.no_grad(), frozen_eval(net):
        logits = net(batch.x)
    check_logits(logits, batch.y, batch.index)
    return logits.shape[1]


def check_logits(logits: Tensor, y: Tensor, index: Tensor) -> None:
    """UserError for the first image whose logits are not finite or have no place for its label."""
    if not isinstance(logits, Tensor) or logits.dim() != 2 or len(logits) != len(y):
        found = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise UserError(f"net: returns {found} for {len(y)} images; it has to return logits [B,N]")
    bad = ~torch.isfinite(logits).all(1)
    if bad.any():
        row = int(index[bad.nonzero()[0, 0]])
        raise UserError(
            f"net: gives nan or inf for test image {row}; these weights cannot be evaluated, train them anew"
        )
    beyond = (y >= logits.shape[1]) | (y < 0)
    if beyond.any():
        first = int(beyond.nonzero()[0, 0])
        raise UserError(
            f"test image {int(index[first])}: label {int(y[first])} is outside 0..{logits.shape[1] - 1}, "
            "the net's classes; correct the data set or choose another net"
        )


def _checked(content: dict[str, Any], m: int) -> Part | None:
    """A part of M images out of a whole file, None where the file holds anything else."""
    kinds: dict[str, Any] = {"forward": int, "backward": int, "seconds": (int, float), "pid": int}
    if not {"robust", "robust_always", "loss", *kinds} <= content.keys() <= set(Part.__dataclass_fields__):
        return None
    vectors = [content["robust"], content["robust_always"], content["loss"]]
    if not all(isinstance(v, Tensor) and v.shape == (m,) for v in vectors):
        return None
    if vectors[0].dtype != torch.bool or vectors[1].dtype != torch.bool or not vectors[2].is_floating_point():
        return None
    measures, x_adv = content.get("measures", {}), content.get("x_adv")
    sound = [isinstance(content[name], kind) for name, kind in kinds.items()]
    sound += [isinstance(measures, dict) and all(isinstance(value, Tensor) for value in measures.values())]
    sound += [x_adv is None or (isinstance(x_adv, Tensor) and x_adv.ndim == 4 and len(x_adv) == m)]
    sound += [all(isinstance(line, str) for line in content.get("warnings", ()))]
    return Part(**content) if all(sound) else None


@dataclass(frozen=True, slots=True)
class PartStore:
    """Finished parts on disk, one file each, written whole or not at all."""

    folder: Path

    def load(self, job: Job) -> Part | None:
        """The part of a job, None if it was never finished or its file is damaged."""
        path = self._path(job)
        if not path.exists():
            return None
        try:
            content = load_checkpoint(path)
        except UserError:
            return None
        return _checked(content, job.last - job.first)

    def save(self, job: Job, part: Part) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        content: dict[str, Any] = asdict(part)
        save_checkpoint(self._path(job), content)

    def _path(self, job: Job) -> Path:
        return self.folder / f"{job.spec.name}-{job.spec.key()}-{job.chunk:05d}.safetensors"
