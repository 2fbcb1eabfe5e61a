"""A few fixed training images whose strategies are followed through training (LAS-AT, Figure 5).

The images lie once in ``probe.safetensors``; after every epoch one record ``probe`` says how likely
each value of each field is for each image, and what the net takes the attacked image for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lasat_ray.data import Images, TrainingImages
from lasat_ray.data.subsets import evened
from lasat_ray.env.attack_strategy import AttackStrategyVectorEnv
from lasat_ray.env.observation import observed
from lasat_ray.learners import Learner
from lasat_ray.methods import AttackContext
from lasat_ray.methods.attack import attack_by_method
from lasat_ray.models import frozen_eval
from lasat_ray.process_group import ProcessGroup
from lasat_ray.rng import RandomKey
from lasat_ray.runs.checkpoint import load_checkpoint, save_checkpoint
from lasat_ray.runs.folder import RunFolder
from lasat_ray.runs.numerics import copied
from lasat_ray.strategy import StrategyNet, StrategySpace
from lasat_ray.types import Batch

NUM_IMAGES = 8
DRAWS = 64  # an image, where a learner has no net to ask for probabilities
FILE = "probe.safetensors"
WATCHED = 256


@dataclass(frozen=True, slots=True, eq=False)
class TrackedImages:
    """``images``: the probe itself; ``rows`` [P] int64: its places among the training images."""

    images: Images
    rows: Tensor

    def save(self, folder: RunFolder, class_names: tuple[str, ...]) -> None:
        """Once a run; a resumed run finds the same file."""
        if not (folder.path / FILE).exists():
            tree = {"x": self.images.x, "y": self.images.y, "rows": self.rows, "class_names": class_names}
            save_checkpoint(folder.path / FILE, tree)


def choose_tracked(images: TrainingImages, seed: int) -> TrackedImages:
    """Up to ``NUM_IMAGES`` images by seed, of as many classes as there are (in a stream's sample)."""
    places, images = images.sample(WATCHED, seed)
    order = RandomKey.of(seed, "probe").permutation(len(images))
    first: dict[int, int] = {}
    for row, label in zip(order.tolist(), images.y[order].tolist(), strict=True):
        first.setdefault(label, row)
        if len(first) == NUM_IMAGES:
            break
    rows = list(first.values())
    rows += [row for row in order[: 2 * NUM_IMAGES].tolist() if row not in rows]
    chosen = torch.tensor(sorted(rows[:NUM_IMAGES]))
    return TrackedImages(images.take(chosen), places[chosen])


def watched(images: TrainingImages, num_val: int, seed: int) -> Images:
    """A quarter as many training images as are validated, at most ``WATCHED``, even over the classes: where
    robust accuracy rises on these and falls on validation, the net overfits robustly (LAS-AT, Figure 1)."""
    _, images = images.sample(WATCHED, seed)
    order = evened(images.y, RandomKey.of(seed, "training images watched").permutation(len(images)))
    return images.take(order[: min(WATCHED, -(-num_val // 4))])


def load_tracked(folder: RunFolder) -> tuple[Images, tuple[str, ...]] | None:
    """The probe's images and the names of all classes; None for a run that recorded none."""
    if not (folder.path / FILE).is_file():
        return None
    tree = load_checkpoint(folder.path / FILE)
    return Images(tree["x"], tree["y"]), tuple(tree["class_names"])


@torch.no_grad()
def strategy_shares(learner: Learner, space: StrategySpace, x: Tensor, key: RandomKey) -> list[Tensor]:
    """How likely each value of each field is for each of B images: K tensors [B,V_k].

    ``x`` [B,C,H,W]: what the learner sees of them (``env.observation.observed``).

    Exact where the learner chooses by a strategy net, else the shares among ``DRAWS`` draws. The
    learner stays as it is: nothing here can change a run.
    """
    net = getattr(learner, "net", None)
    if isinstance(net, StrategyNet):
        training = net.training
        try:
            return [log_p.exp() for log_p in net.eval()(x)]
        finally:
            net.train(training)
    before = copied(learner.state_dict())  # a curriculum counts how often it is asked
    many = x.repeat_interleave(DRAWS, 0)
    index_BK = learner.act(many, torch.arange(len(many), device=x.device), key).index
    learner.load_state_dict(before)
    draws = index_BK.view(len(x), DRAWS, -1)
    options = [torch.arange(size, device=x.device) for size in space.sizes]
    return [(draws[:, :, k, None] == option).to(x.dtype).mean(1) for k, option in enumerate(options)]


def attack_probe(net: nn.Module, batch: Batch, action_BK: Tensor, env: AttackStrategyVectorEnv) -> Tensor:
    """x_adv [B,C,H,W] by the method's own attack, each image by its own strategy ``action_BK`` [B,K]."""
    target = env.target
    context = AttackContext(
        batch=batch,
        strategy=env.space.decode(action_BK),
        key=RandomKey.of("probe start"),
        config=env.config.loss,
        epoch=target.epoch(max(env.round - 1, 0)),
        epochs=env.config.epochs,
        strength=target.strength,
        group=ProcessGroup(),
        memory=target.remembered(max(env.round - 1, 0)),
        progress=target.share(max(env.round - 1, 0)),
        companion=target.companion,
    )
    return attack_by_method(net, target.method, context, env.config.attack)[0]


def inspect_tracked(
    probe: TrackedImages, net: nn.Module, learner: Learner, env: AttackStrategyVectorEnv, key: RandomKey
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What the probe shows now: the facts of its record, and its pictures by name, [P,C,H,W] in [0,1]."""
    space, x = env.space, probe.images.x.to(env.batch.x).div_(255)
    y = probe.images.y.to(x.device)
    batch = Batch(x=x, y=y, index=torch.arange(len(x), device=x.device), global_size=len(x))
    seen = observed(env.config, batch, net, env.num_classes, ProcessGroup())
    probabilities = strategy_shares(learner, space, seen, key)
    action_BK = torch.stack([share.argmax(1) for share in probabilities], 1)
    x_adv = attack_probe(net, batch, action_BK, env)
    with torch.no_grad(), frozen_eval(net):
        predicted, predicted_adv = (net(images).argmax(1).tolist() for images in (x, x_adv))
    told = {
        name: [[round(p, 5) for p in row] for row in share.tolist()]
        for name, share in zip(space.names, probabilities, strict=True)
    }
    facts = {"share": told, "y": y.tolist(), "predicted": predicted, "predicted_adv": predicted_adv}
    widest = max(float(value.max()) for value in (x_adv - x).abs())
    delta = (x_adv - x) / (2 * max(widest, 1e-12)) + 0.5  # gray is unchanged
    return facts, {"1_x": x, "2_delta": delta, "3_x_adv": x_adv}
