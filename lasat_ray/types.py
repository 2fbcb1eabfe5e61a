"""What flows between the rooms: plain data, no behaviour beyond indexing.

Shape letters: B images on this worker, C channels, H height, W width, N classes, K strategy fields.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """One worker's share of a round's images.

    ``x`` [B,C,H,W] in [0,1]; ``y`` [B] int64 labels; ``index`` [B] int64 row in the data set, the
    name under which all of an image's random numbers are drawn; ``global_size`` images of the
    round over all workers, the N of every mean. Where images are mixed (CutMix), ``y_other`` [B] is
    the label of the pasted part and ``share`` [B] in [0,1] the part of the image that is ``y``. ``soft_y``
    [B,N]: what the method formed of each image before the attack: a label (ADR), an average (TE).
    ``num_rows``: every ``index`` of the run is below it, where the host knows that.
    """

    x: Tensor
    y: Tensor
    index: Tensor
    global_size: int
    y_other: Tensor | None = None
    share: Tensor | None = None
    soft_y: Tensor | None = None
    num_rows: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Strategy:
    """How each image is attacked; every field is a [B] tensor on the images' device.

    ``eps`` and ``step_size`` in [0,1] pixels, ``num_steps`` int64, ``attack_loss`` int64 place in
    ``config.units.ATTACK_LOSSES``, ``awp_gamma`` relative to the weights' norm (its mean over the global
    batch perturbs the weights that all images share), ``label_smoothing`` the share taken from the true class
    in the loss alone, ``momentum`` what an attack step keeps of the direction before, ``direction``
    int64 place in ``config.units.DIRECTIONS``, ``restarts`` int64 starts of which the worst is kept,
    ``augmix`` and ``erasing`` how far the image is varied before its attack (``data.strength``). Fields that
    a grid does not name are None and the attack's or the method's own setting holds. ``common_steps``: the
    ``num_steps`` of every image where the host knows it, so that nobody asks the device; whoever changes
    ``num_steps`` clears it.
    """

    eps: Tensor
    num_steps: Tensor
    step_size: Tensor
    start_radius: Tensor | None = None
    trades_beta: Tensor | None = None
    attack_loss: Tensor | None = None
    awp_gamma: Tensor | None = None
    label_smoothing: Tensor | None = None
    momentum: Tensor | None = None
    direction: Tensor | None = None
    restarts: Tensor | None = None
    augmix: Tensor | None = None
    erasing: Tensor | None = None
    common_steps: int | None = None

    def items(self) -> list[tuple[str, Tensor]]:
        """The fields that are set, in the order of the class."""
        pairs = [(f.name, getattr(self, f.name)) for f in fields(self) if f.name != "common_steps"]
        return [(name, value) for name, value in pairs if value is not None]

    def __getitem__(self, rows: Any) -> Strategy:
        """The strategies of some images: an index, slice or mask over B."""
        return Strategy(**{name: value[rows] for name, value in self.items()}, common_steps=self.common_steps)


@dataclass(frozen=True, kw_only=True, slots=True)
class Logits:
    """What the nets say in the forward passes that a method asked for; [B,N] each, [B,K,N] of K second nets.

    ``adv``, ``clean`` and ``helper`` (on x + 2 delta) are the target net's, ``companion`` is the
    method's second net's.
    """

    adv: Tensor
    clean: Tensor | None = None
    helper: Tensor | None = None
    companion: Tensor | None = None

    def detach(self) -> Logits:
        """The same logits [B,N] without a graph."""
        return Logits(**{name: value.detach() for name, value in self.items()})

    def items(self) -> list[tuple[str, Tensor]]:
        """The passes that were made, in the order of the class."""
        pairs = [(f.name, getattr(self, f.name)) for f in fields(self)]
        return [(name, value) for name, value in pairs if value is not None]


AttackStats = dict[str, Tensor]
"""What an attack found out about each image, [B] each: steps taken, GAIRAT's kappa and weight, ..."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AttackedBatch:
    """What one round attacked: made once, and handed to the update, the stepped copy, the reward and the
    credit.

    ``batch``: the images that were attacked, varied where their strategies say so, and what the method formed
    of them; ``x_adv`` [B,C,H,W] in [0,1]; ``strategy``: as the method limited it; ``round`` counts from 0;
    ``stats``: what the method's rule found out about each image.
    """

    batch: Batch
    x_adv: Tensor
    strategy: Strategy
    round: int = 0
    stats: AttackStats = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class RewardTerms:
    """L1, L2, L3 of the paper (eq. 7) per image, larger is better for the strategy net; [B] each, but all of
    held-out images [H] save L1.

    ``ref_correct`` / ``clean_correct`` [B] or [H] bool: the looked-ahead net is right on the reference
    attack's image / on the clean image.
    """

    l1: Tensor
    l2: Tensor
    l3: Tensor
    ref_correct: Tensor
    clean_correct: Tensor

    def detach(self) -> RewardTerms:
        """The same terms [B] without a graph."""
        return RewardTerms(**{f.name: getattr(self, f.name).detach() for f in fields(self)})


@dataclass(frozen=True, kw_only=True, slots=True)
class RewardReport:
    """What a rewarded round earned, and from what.

    ``reward`` [B]; ``terms`` [B] each; ``influence`` [B] with that credit; ``adv_correct`` [B] bool: the
    net before the update was right on x_adv, where a copy was stepped for the reward alone;
    ``credit_correlation`` 0-d, in rounds that compare the credit with what images really did. With the
    objective ``rate``: ``cost`` [B] of each image's attack and update in passes, ``gain`` [B], and
    ``price`` 0-d of a pass. ``outcome_size``: images behind L2 and L3 over all workers. ``raw`` [B]: the
    reward before it was standardized over its batch, whose mean over rounds would tell nothing.
    """

    reward: Tensor
    terms: RewardTerms
    outcome_size: int
    influence: Tensor | None = None
    adv_correct: Tensor | None = None
    credit_correlation: Tensor | None = None
    gain: Tensor | None = None
    cost: Tensor | None = None
    price: Tensor | None = None
    raw: Tensor | None = None

    def per_image(self) -> dict[str, Tensor]:
        """Every figure of an image, [B] or of held-out images [H], by the name under which it is recorded."""
        named = {f.name: getattr(self.terms, f.name) for f in fields(self.terms)}
        more = {"influence": self.influence, "gain": self.gain, "cost": self.cost}
        return named | {name: value for name, value in more.items() if value is not None}


@dataclass(frozen=True, kw_only=True, slots=True)
class Action:
    """What a learner chose: ``index`` [B,K] int64 into each field's values, ``log_prob`` [B].

    ``memory``: whatever the learner wants back with the reward of this action, for example the forward
    pass that it chose by.
    """

    index: Tensor
    log_prob: Tensor
    memory: Any = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Rollout:
    """One round as a learner sees it: images [B,C,H,W], action [B,K], log_prob [B] when it was
    drawn, reward [B], ``global_size`` images over all workers, and the ``memory`` of the learner's action;
    with the baseline ``greedy`` also ``greedy_reward`` [B], what the learner's likeliest strategies would
    have earned."""

    x: Tensor
    action: Tensor
    log_prob: Tensor
    reward: Tensor
    global_size: int
    greedy_reward: Tensor | None = None
    memory: Any = None


@dataclass(frozen=True, kw_only=True, slots=True)
class StepReport:
    """What one target update did, on this worker's images; all tensors stay on the device.

    ``loss`` [B] as trained; ``l1`` [B] the method's own loss before the update, without label
    smoothing; ``adv_correct`` [B] bool before the update; ``max_logit`` [B] largest size of an image's
    logits in all passes of the loss; ``grad_norm`` scalar of the global gradient.
    """

    l1: Tensor
    loss: Tensor
    grad_norm: Tensor
    adv_correct: Tensor
    max_logit: Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class LearnerReport:
    """Metrics of one learner update. ``per_image``: [B] tensors whose global mean is of interest;
    ``scalars``: 0-d tensors that are already the same on every worker."""

    per_image: dict[str, Tensor] = field(default_factory=dict)
    scalars: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class RoundReport:
    """Everything one round has to tell, still on the device: nothing in the loop waits for it.

    ``sums``: 0-d sums over this worker's images, to be added over workers and divided by
    ``global_size``; ``NAME_std`` sums the squares of NAME; ``scalars``: the same on every worker;
    ``progress``: share of the run's budget that its schedules went by, where it has one;
    ``option_counts`` [sum V_k]; ``watched``: what has to be finite, [B] or 0-d, of the images ``index`` [B].
    """

    round: int
    global_size: int
    sums: dict[str, Tensor]
    scalars: dict[str, Tensor]
    option_counts: Tensor
    watched: dict[str, Tensor] = field(default_factory=dict)
    index: Tensor | None = None
    progress: float | None = None
