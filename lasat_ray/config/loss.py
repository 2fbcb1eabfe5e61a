"""The settings of the training methods; the part of the config that grows with every method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from tyro.conf import arg

SEVERAL = arg(help_behavior_hint=lambda given: f"(default: {given or 'none'})")
"""--help of an option that takes any number of values: what it says where the default is none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LossConfig:
    """The target net's training loss."""

    label_smoothing: float = 0.0
    """Probability taken from the true class and shared by the others (0.3 = the paper's factor 0.7)."""
    trades_beta: float = 6.0
    """Weight of the KL term of TRADES and its kin."""
    awp_gamma: float | None = None
    """Adversarial weight perturbation relative to each tensor's norm; none: the method's own."""
    awp_warmup: int = 0
    """Epochs before weights are perturbed."""
    fat_milestones: Annotated[tuple[float, ...], SEVERAL] = ()
    """FAT: epochs (from 1) after which tau grows by one; empty: the published, stretched to this run."""
    fat_omega: float | None = None
    """FAT: deviation of the noise added to every step; none: the variant's own."""
    gairat_milestones: Annotated[tuple[float, ...], SEVERAL] = ()
    """GAIRAT: epochs (from 1) where weighting begins and Lambda drops; empty: published, stretched."""
    gairat_lambda: float = -1.0
    """GAIRAT: Lambda once weighting has begun."""
    gairat_lambda_max: float | None = None
    """GAIRAT: Lambda that the linear schedule comes down from."""
    gairat_schedule: Literal["fixed", "linear", "piecewise"] = "fixed"
    """GAIRAT: course of Lambda."""
    gairat_weight: Literal["tanh", "sigmoid", "discrete"] = "tanh"
    """GAIRAT: how a weight falls with kappa."""
    dart_fosc: float = 0.5
    """DART: FOSC at which an attack may stop in epoch 0, in units of the loss."""
    dart_epochs: float | None = None
    """DART: epoch (from 0) at which that has fallen to 0; none: 100 of 120, stretched."""
    dart_anchor: Literal["image", "start"] = "image"
    """DART: FOSC is measured from the clean image (paper) or the random start (published code)."""
    dart_self_weight: bool = False
    """DART: multiply each image's loss by itself after epoch 0, as the published code does."""
    sat_start: float = 0.0
    """SAT: softmax gap at which attacks stop in epoch 0, from -1 to 1."""
    sat_epochs: float | None = None
    """SAT: epoch (from 0) from which no attack stops early; none: half the run."""
    cat_threshold: float = 0.5
    """CAT: validation accuracy under the present strength from which it grows."""
    hat_gamma: float = 0.5
    """HAT: weight of the helper examples' cross-entropy."""
    ltd_temperature: float = 5.0
    """LTD: temperature of the teacher's softmax."""
    ikl_alpha: float = 20.0
    """IKL: weight of the squared differences of logits, the paper's alpha; trades_beta is its beta."""
    ikl_temperature: float = 4.0
    """IKL: temperature of the predictions that class means are taken of."""
    kd_plain: float = 0.1
    """KD-SWA: weight of the plainly trained net's predictions."""
    kd_robust: float = 0.6
    """KD-SWA: weight of the robust net's predictions; the true label has what is left of 1."""
    kd_temperature: float = 2.0
    """KD-SWA: temperature of both and of the target beside them."""
    te_weight: float = 300.0
    """TE: weight of the squared distance from the average of an image's predictions."""
    te_decay: float = 0.9
    """TE: what a prediction still counts an epoch later."""
    te_epochs: tuple[float, float] | None = None
    """TE: epochs (from 1) where it begins and its weight is full; none: 90 and 150 of 200, stretched."""
    atas_c: float = 0.01
    """ATAS: gradient norm, of the mean loss over the batch, at which a step is half its largest."""
    atas_decay: float = 0.5
    """ATAS: what an image's gradient norm still counts at its next attack."""
    atas_range: tuple[float, float] = (0.25, 0.875)
    """ATAS: shortest and longest step, as shares of the strategy's."""
    atas_warmup: int | None = None
    """ATAS: epochs whose steps are the budget; none: 5 of 30, stretched."""
    adr_decay: float = 0.995
    """ADR: decay of the target's average that labels are formed with."""
    adr_temperature: tuple[float, float] = (2.5, 2.0)
    """ADR: temperature of its predictions at the beginning and at the end."""
    adr_trust: tuple[float, float] = (0.7, 0.95)
    """ADR: its share of the label, where it is right, at the beginning and at the end."""
    rebat_weight: float = 1.0
    """ReBAT: weight of the KL divergence from the target's average."""
    rebat_decay: float = 0.999
    """ReBAT: decay of that average."""
    rebat_start: float | None = None
    """ReBAT: epoch (from 0) where the average begins to lag; none: 105 of 200, stretched."""
    hydra_keep: float = 0.1
    """HYDRA: share of each layer's weights that is kept."""
    hydra_epochs: int | None = None
    """HYDRA: epochs that learn which weights to keep; none: 20 of 120, stretched; the rest fine-tunes."""
    hydra_tune_rate: float = 0.1
    """HYDRA: learning rate of fine-tuning relative to optim.lr; each stage runs a whole schedule."""
