"""Settings of the strategy net's reward."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lasat_ray.config.fields import Budget


@dataclass(frozen=True, kw_only=True, slots=True)
class RewardConfig:
    """Reward of the strategy net: L1 + alpha L2 + beta L3 (LAS-AT, eq. 7)."""

    objective: Literal["total", "rate"] = "total"
    """total: what an attack earns; rate: what it earns less its price, for the most gain per pass."""
    cost_target: float = 0.0
    """rate: passes an image's attack and update cost on average, held by the price; 0: no target."""
    outcome: Literal["batch", "heldout"] = "batch"
    """Images of L2 and L3: the round's own, or others that no update ever sees."""
    outcome_images: int = 32
    """heldout: images that are asked in a rewarded round, over all workers."""
    outcome_fraction: float = 0.1
    """heldout: share of the training images set aside for it, but outcome_images at least."""
    mode: Literal["paper", "reference"] = "paper"
    """paper: losses, per image; reference: the published code's clamped accuracies, one scalar a batch."""
    credit: Literal["image", "batch", "influence"] = "image"
    """image: each is paid its own terms; batch: the global mean; influence: what it did to L2 and L3."""
    alpha: float = 1.0
    """Weight of L2, the robustness of the looked-ahead net."""
    beta: float = 1.0
    """Weight of L3, the looked-ahead net on clean images."""
    l1_weight: float = 1.0
    """Weight of L1, the strength of the attack (1 in the paper)."""
    check_every: int = 0
    """Strategy updates between comparisons of the credit with what leaving images out does; 0: never."""
    standardize: bool = False
    """Give each term mean 0 and deviation 1 over the global batch before it is weighted."""
    lookahead: Literal["real", "copy"] = "real"
    """real: the looked-ahead net is the target after its own update; copy: a deep copy is stepped first."""
    copy_weight_decay: float = 0.0
    """Weight decay of the copy's single plain SGD step (reference code: 5e-4)."""
    copy_label_smoothing: float = 0.0
    """Label smoothing of the copy's step (reference code: 0.3)."""
    ref_eps: Budget = 8 / 255
    """Budget of the fixed reference attack behind L2."""
    ref_num_steps: int = 10
    """Steps of the reference attack."""
    ref_step_size: Budget = 2 / 255
    """Step of the reference attack."""
    ref_moves: Literal["mode", "all", "correct"] = "mode"
    """Images it moves: all, or those still correct; mode: correct in reference mode, else all."""
    ref_restarts: int = 1
    """Random restarts of the reference attack; the worst by cross-entropy counts."""
    r2_factor: float = 4.0
    """reference mode: what a reference-attack accuracy of 1 is worth."""
    r3_factor: float = 2.0
    """reference mode: what a clean accuracy of 1 is worth."""
    clamp: float = 10.0
    """reference mode: each term is clipped to +- this."""
