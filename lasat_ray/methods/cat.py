"""CAT, curriculum adversarial training: attacks grow from 0 steps to k, and k grows when the net
withstands the present strength (Cai et al. 2018, algorithms 1 and 2, with batch mixing)."""

from __future__ import annotations

import dataclasses

import torch

from lasat_ray.methods import pgd_at
from lasat_ray.methods.base import AttackContext, known_method
from lasat_ray.types import Strategy


def limit(context: AttackContext) -> Strategy:
    """Batch mixing: each image gets a number of steps [B] drawn from 0..k, at most its strategy's own."""
    drawn = context.key.fold_in("cat strength").integers(context.batch.index, (), context.strength + 1)
    strategy = context.strategy
    drawn = torch.minimum(strategy.num_steps, drawn)
    return dataclasses.replace(strategy, num_steps=drawn, common_steps=None)


def next_strength(strength: int, accuracy: float, threshold: float, most: int) -> int:
    """k + 1 once the validation accuracy under PGD-k reaches the threshold, at most ``most``."""
    return min(strength + 1, most) if accuracy >= threshold else strength


METHOD = known_method("cat", pgd_at.loss, limit=limit)
