"""The reward of the strategy net: L1 + alpha L2 + beta L3 (LAS-AT, eq. 7), and who is paid what."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lasat_ray.attacks import constant_strategy, worst_of_restarts
from lasat_ray.attacks.ball import BALLS
from lasat_ray.attacks.objectives import batch_cross_entropy
from lasat_ray.config import RewardConfig
from lasat_ray.process_group import ProcessGroup, numbers_like
from lasat_ray.rng import RandomKey
from lasat_ray.types import Batch, RewardTerms

_TINY = 1e-8  # keeps a constant term from dividing by a deviation of zero


def reference_images(
    net: nn.Module, batch: Batch, config: RewardConfig, starts: list[Tensor], norm: str = "linf"
) -> Tensor:
    """x_ref [B,C,H,W]: the fixed, strong attack behind L2, on the looked-ahead net."""
    strategy = constant_strategy(
        batch.x, eps=config.ref_eps, num_steps=config.ref_num_steps, step_size=config.ref_step_size
    )
    # The published code leaves misclassified images where they are; the paper attacks all.
    moves = (
        ("correct" if config.mode == "reference" else "all")
        if config.ref_moves == "mode"
        else config.ref_moves
    )
    only_correct = moves == "correct"
    return worst_of_restarts(net, batch, strategy, starts, only_correct=only_correct, norm=norm)


def reference_starts(batch: Batch, config: RewardConfig, key: RandomKey, norm: str = "linf") -> list[Tensor]:
    """Uniform starts in the reference ball, one [B,C,H,W] a restart."""
    radius = torch.full_like(batch.x[:, 0, 0, 0], config.ref_eps)
    streams = [key if n == 0 else key.fold_in(n) for n in range(config.ref_restarts)]
    return [BALLS[norm].start(batch.x, radius, batch.index, each) for each in streams]


def reward_terms(
    looked_ahead: nn.Module, batch: Batch, x_ref: Tensor, l1: Tensor, *, graph: bool = False
) -> RewardTerms:
    """L2 = -CE(f(x_ref; w^), y) and L3 = -CE(f(x; w^), y) per image beside the given L1 [B].

    ``batch``: the images of the outcome, the round's own or held-out ones [H,C,H,W], of which L2 and L3
    then are [H].

    Mixed labels (CutMix) count by their shares in both, as they do in L1. The looked-ahead net speaks
    in eval mode; its training flag is restored. With ``graph`` L2 and L3 stay tied to its weights, for
    a credit that differentiates them.
    """
    was_training = looked_ahead.training
    looked_ahead.eval()
    with torch.set_grad_enabled(graph):
        ref_logits, clean_logits = looked_ahead(x_ref), looked_ahead(batch.x)
    looked_ahead.train(was_training)
    return RewardTerms(
        l1=l1,
        l2=-batch_cross_entropy(ref_logits, batch),
        l3=-batch_cross_entropy(clean_logits, batch),
        ref_correct=ref_logits.argmax(1) == batch.y,
        clean_correct=clean_logits.argmax(1) == batch.y,
    )


def outcome_gain(
    terms: RewardTerms, before: nn.Module | None, batch: Batch, x_ref: Tensor, config: RewardConfig
) -> Tensor:
    """What the update did to each image's own alpha L2 + beta L3, [B]: the gain that a credit of levels
    tells nothing of. ``before``: the net before the update; x_ref [B,C,H,W]."""
    assert before is not None, "the round keeps the net where the reward needs it"
    then = reward_terms(before, batch, x_ref, terms.l1)
    return config.alpha * (terms.l2 - then.l2) + config.beta * (terms.l3 - then.l3)


def combine(
    terms: RewardTerms,
    config: RewardConfig,
    global_size: int,
    group: ProcessGroup,
    influence: Tensor | None = None,
    price: Tensor | None = None,
) -> Tensor:
    """The reward of each image, [B]; every statistic is over the global batch.

    ``influence`` [B], with credit ``influence``, stands for alpha L2 + beta L3 (credit.py). ``price`` [B]:
    what each image's attack costs, in units of its gain (objective ``rate``).
    """
    if config.credit == "influence":
        assert influence is not None
        if price is not None:
            influence = influence - price
        columns = standardized(torch.stack([terms.l1, influence], dim=1), global_size, group)
        return columns @ numbers_like(columns, [config.l1_weight, 1.0])
    if config.mode == "reference":
        columns = _reference_columns(terms, config, global_size, group)
    else:
        columns = torch.stack([terms.l1, terms.l2, terms.l3], dim=1)
        if config.standardize:
            columns = standardized(columns, global_size, group)
        if config.credit == "batch":
            columns = (group.sum(columns.sum(0)) / global_size).expand_as(columns)
    weights = numbers_like(columns, [config.l1_weight, config.alpha, config.beta])
    total = columns @ weights
    return total if price is None else total - price


def raw_reward(
    terms: RewardTerms, config: RewardConfig, influence: Tensor | None = None, price: Tensor | None = None
) -> Tensor | None:
    """l1_weight L1 + alpha L2 + beta L3, or the influence in place of the last two, less ``price`` (all [B]):
    what ``combine`` weighs, as it was before any statistic of the batch; None where it uses none."""
    if influence is None and (config.mode == "reference" or config.credit == "batch"):
        return None
    outcome = config.alpha * terms.l2 + config.beta * terms.l3 if influence is None else influence
    total = config.l1_weight * terms.l1 + outcome
    return total if price is None else total - price


def standardized(columns_BJ: Tensor, global_size: int, group: ProcessGroup) -> Tensor:
    """Each column to mean 0 and deviation 1 over the global batch; [B,J] -> [B,J]."""
    # Two passes: a one-pass variance loses everything when the mean is large beside the deviation.
    mean = group.sum(columns_BJ.sum(0)) / global_size
    centered = columns_BJ - mean
    variance = group.sum((centered**2).sum(0)) / global_size
    return centered / (variance.sqrt() + _TINY)


def _reference_columns(
    terms: RewardTerms, config: RewardConfig, global_size: int, group: ProcessGroup
) -> Tensor:
    """The published code's scalars: clamped mean L1, accuracies times a factor; [B,3], rows equal."""
    dtype = terms.l1.dtype
    local = torch.stack(
        [terms.l1.sum(), terms.ref_correct.sum().to(dtype), terms.clean_correct.sum().to(dtype)]
    )
    r1, ref_acc, clean_acc = (group.sum(local) / global_size).unbind()
    scalars = torch.stack(
        [
            r1.clamp(0.0, config.clamp),
            (ref_acc * config.r2_factor).clamp(-config.clamp, config.clamp),
            (clean_acc * config.r3_factor).clamp(-config.clamp, config.clamp),
        ]
    )
    return scalars.expand(len(terms.l1), 3)
