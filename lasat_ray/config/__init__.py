"""Every setting that decides what a run computes, with its unit; a recipe is one such tree. Where and
how (workers, device, folder) must not change results and is not here. Checks: ``validate.py``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from lasat_ray.config.data import DataConfig
from lasat_ray.config.fields import Budget, GridSpec
from lasat_ray.config.loss import SEVERAL, LossConfig
from lasat_ray.config.numerics import NumericsConfig
from lasat_ray.config.reward import RewardConfig
from lasat_ray.config.units import DIRECTIONS, Grid

__all__ = [
    "LEARNED",
    "AttackConfig",
    "Budget",
    "DataConfig",
    "EvalConfig",
    "GridSpec",
    "LossConfig",
    "NumericsConfig",
    "OptimConfig",
    "PolicyConfig",
    "RewardConfig",
    "SpeedConfig",
    "TrainConfig",
    "grid_of",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class AttackConfig:
    """The training attack: the fixed strategy, and the grid a strategy net chooses from."""

    norm: Literal["linf", "l2"] = "linf"
    """Norm of every training budget, step and radius, of the reference attack's too."""
    eps: Budget = 8 / 255
    """Budget of the fixed strategy, in [0,1] pixels."""
    num_steps: int = 10
    """PGD steps of the fixed strategy."""
    step_size: Budget = 2 / 255
    """PGD step of the fixed strategy, in [0,1] pixels."""
    grid: GridSpec = field(default_factory=dict)
    """Values each field may take, one head per field; used by learned and random strategies."""
    loss: Literal["method", "ce", "kl", "margin", "squared"] = "method"
    """What the attack raises; 'method' takes the training method's own choice."""
    start: Literal["method", "uniform", "normal", "zero"] = "method"
    """Distribution of the starting point; normal is 0.001 times a standard normal (TRADES)."""
    start_radius: Budget | None = None
    """Radius of the uniform start; none means each image's own eps."""
    momentum: float = 0.0
    """What a step of the fixed strategy keeps of the direction before (MI-FGSM); 0: plain PGD."""
    direction: Literal["sign", "gradient"] = "sign"
    """Where an L-inf step of the fixed strategy goes: by signs, or along the gradient (FGM, as in A2)."""
    restarts: int = 1
    """Starts of the fixed strategy's attack, of which the worst is kept."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PolicyConfig:
    """How the strategy net learns."""

    optimizer: Literal["sgd", "adam"] = "sgd"
    """Optimizer of the strategy net."""
    lr: float = 1e-4
    """Learning rate of the strategy net."""
    momentum: float = 0.0
    """SGD momentum of the strategy net."""
    weight_decay: float = 0.0
    """Weight decay of the strategy net."""
    grad_clip: float = 1.0
    """Largest gradient norm of the strategy net; 0 switches clipping off."""
    baseline: Literal["learner", "none", "mean", "leave-one-out", "running", "greedy", "value"] = "learner"
    """Subtracted from the reward; greedy: that of the likeliest strategy; learner: the learner's own."""
    normalize_advantage: bool = False
    """Give reward minus baseline mean 0 and deviation 1 over the global batch."""
    value_weight: float = 0.5
    """Weight of half the value net's squared error (baseline value), of every learner that has one."""
    entropy_weight: float = 0.0
    """Weight of the entropy bonus, at first."""
    entropy_schedule: Literal["constant", "linear", "cosine"] = "constant"
    """Course of that weight over the run's updates."""
    entropy_final: float = 0.0
    """linear, cosine: the weight at the end."""
    min_exploration: float = 0.0
    """Share of every head's probability spread evenly over its options, so that none dies out."""
    initial_price: float = 0.0
    """Log-odds at the start against a number of steps, per cost of the grid's average; 0: all alike."""
    head: Literal["categorical", "ordinal"] = "categorical"
    """categorical: a logit an option; ordinal: a discretized normal over the options, for fine grids."""
    update_epochs: int = 4
    """ppo, mirror-descent: passes over the round's images in one update."""
    minibatches: int = 4
    """ppo, mirror-descent: gradient steps a pass."""
    clip: float = 0.2
    """ppo: how far a probability may move by one update, as a ratio from 1 - clip to 1 + clip."""
    target_kl: float | None = None
    """ppo: end the passes once the policy has moved by 1.5 times this, in nats."""
    mirror_step: float = 1.0
    """mirror-descent: step of the exponentiated gradient, in 1 / reward."""
    exploration: float = 1.0
    """ucb, thompson: width of confidence bounds, in deviations of the reward."""
    discount: float = 1.0
    """ucb, thompson: what a past update's rewards still count at the next one; 1 forgets nothing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimConfig:
    """How the target net's weights move."""

    optimizer: Literal["sgd", "adamw"] = "sgd"
    """Optimizer of the target net."""
    lr: float = 0.1
    """Peak learning rate."""
    momentum: float = 0.9
    """SGD momentum; adamw: decay of the mean gradient (beta1)."""
    beta2: float = 0.999
    """adamw: decay of the mean squared gradient."""
    nesterov: bool = False
    """Nesterov momentum."""
    weight_decay: float = 5e-4
    """L2 penalty; adamw: decoupled from the gradient."""
    decay_norms: bool = True
    """Apply weight decay to normalization layers and biases too."""
    freeze: Annotated[tuple[str, ...], SEVERAL] = ()
    """Layers that stay as they begin, by patterns of their names: conv1 'layer1.*'."""
    lr_factors: Annotated[tuple[str, ...], SEVERAL] = ()
    """PATTERN=FACTOR: multiples of the learning rate by layer, 'layer*=0.1' 'fc=10'; the last that fits."""
    schedule: Literal["constant", "multistep", "cosine", "one-cycle", "restarts"] = "multistep"
    """Course of the learning rate over the run."""
    milestones: tuple[float, ...] = (99.0, 104.0)
    """multistep: epochs after which the rate is multiplied by lr_decay."""
    lr_decay: tuple[float, ...] = (0.1,)
    """multistep: factor at each milestone in turn; one factor holds for all."""
    restart_epochs: float = 10.0
    """restarts: epochs of the first half cosine; the rate then starts again at its peak."""
    restart_factor: float = 2.0
    """restarts: how much longer each half cosine is than the one before."""
    warmup_epochs: float = 0.0
    """Epochs of linear warm-up (one-cycle: until the peak)."""
    warmup_start: float = 0.04
    """Share of the rate that a warm-up or one-cycle begins with, as in PyTorch's OneCycleLR."""
    grad_clip: float = 0.0
    """Largest gradient norm of the target net; 0 switches clipping off."""
    ema_decay: float = 0.0
    """Decay of the weight average that is evaluated beside the net; 0 switches it off."""
    sync_batch_norm: bool = False
    """Several workers: BatchNorm sees the images of all, as one process does; else each its own share."""
    swa_start: float | None = None
    """Epoch (from 0) from which nets at the ends of epochs are averaged equally and evaluated; none: not."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EvalConfig:
    """Accuracy measured during and after training (random-start PGD on cross-entropy)."""

    norm: Literal["linf", "l2"] = "linf"
    """Norm of the evaluation attacks."""
    eps: Budget = 8 / 255
    """Budget of every evaluation attack."""
    step_size: Budget = 2 / 255
    """Step of every evaluation attack."""
    every: int = 1
    """Validate and checkpoint every this many epochs, and after the last."""
    val_num_steps: int = 10
    """PGD steps on the validation split."""
    test_num_steps: tuple[int, ...] = (10, 50)
    """PGD steps of the final evaluation on the test set."""
    batch_size: int = 500
    """Images attacked at once."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SpeedConfig:
    """Other arithmetic for the same formulas: faster, equal up to rounding."""

    fold_batch_norm: bool = True
    """Attack a copy of the net whose BatchNorms are folded into the convolutions before them."""
    channels_last: bool = False
    """Keep images and weights with the channel as the fastest axis; nets narrower than 8 stay as they are."""
    compile: Literal["none", "graph", "eager", "aot_eager", "inductor", "cudagraphs"] = "none"
    """graph: a PGD step as one CUDA graph; else torch.compile; cudagraphs: inductor with CUDA graphs."""
    tf32: Literal["none", "convolutions", "all"] = "convolutions"
    """What a GPU multiplies in TF32, with 10 bits of mantissa for 23, where nets are fp32."""
    bucket: int = 0
    """Attack so many images or a multiple of it, finished ones along, so that few sizes occur; 0: off."""
    balance: bool = False
    """Attack images on whichever worker has the fewest steps to take: docs/scaling.md says where it pays."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """One run of adversarial training, complete."""

    recipe: str = "digits"
    """Named settings to start from; --list-recipes shows all."""
    dataset: str = "digits"
    """digits, cifar10, cifar100, svhn, gtsrb, tiny-imagenet; imagefolder:, parquet:, npz:PATH; stream:URL."""
    model: str = "small_cnn"
    """Target net: a name such as resnet18 or wrn-34-10, torchvision:NAME[@WEIGHTS], timm:NAME[@TAG],
    module:function."""
    strategy_model: str = "small_cnn"
    """Backbone of the strategy net, spelled as --model."""
    method: str = "pgd-at"
    """What the target net minimizes."""
    init_from: str | None = None
    """Run folder, checkpoint or state dict that the target starts from; hydra prunes that net."""
    new_head: bool = False
    """Begin the last layer anew although --init-from has one for as many classes."""
    teacher: str | None = None
    """Run folder or checkpoint of the frozen net that hat and ltd learn from; kd-swa: of the plain one."""
    robust_teacher: str | None = None
    """Run folder or checkpoint of the frozen, robust net that kd-swa learns from beside --teacher."""
    teacher_model: str | None = None
    """Net of the teacher that lbgat trains, spelled as --model; none: the target's."""
    strategy: Literal["learned", "class-wise", "random", "fixed", "curriculum", "margin"] = "learned"
    """Who chooses: a net for each image, a learned table for each class, or a rule (docs/learners.md)."""
    learner: str = "reinforce"
    """How a learned strategy learns: a name or module:Class."""
    update_interval: int = 1
    """Rounds between strategy updates, the paper's k."""
    epochs: int = 30
    """Passes over the training images; with a budget the length that schedules are written for."""
    budget_passes: float = 0.0
    """Ends the run after so many forward passes of the target net per training image, those of the strategy
    net weighed by its arithmetic; schedules follow; 0: epochs do."""
    budget_minutes: float = 0.0
    """Ends the run after so many minutes of training, schedules follow; 0: epochs do."""
    stop_on: Literal["none", "validation", "gain"] = "none"
    """End early: validation: its robust accuracy rises no more; gain: the rate objective's gain is gone."""
    stop_patience: int = 5
    """stop-on: validated epochs in a row without a new best, or with a gain of 0 or less."""
    batch_size: int = 128
    """Images a round over all workers."""
    seed: int = 0
    """Names every random number of the run."""
    precision: Literal["fp32", "bf16", "fp64"] = "fp32"
    """Arithmetic of the forward passes; weights and losses stay in fp32 with bf16."""
    data: DataConfig = field(default_factory=DataConfig)
    attack: AttackConfig = field(default_factory=AttackConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    reward: RewardConfig = field(default_factory=RewardConfig)
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    evaluation: EvalConfig = field(default_factory=EvalConfig)
    speed: SpeedConfig = field(default_factory=SpeedConfig)
    numerics: NumericsConfig = field(default_factory=NumericsConfig)

    @property
    def learns(self) -> bool:
        """Whether somebody is rewarded for the strategies."""
        return self.strategy in LEARNED


LEARNED = ("learned", "class-wise")
"""The strategies that are learned from rewards."""


def grid_of(config: TrainConfig) -> Grid:
    """The fields and values in play: the fixed strategy's single values, overridden by the grid."""
    attack = config.attack
    fixed: dict[str, tuple[float, ...]] = {
        "eps": (attack.eps,),
        "num_steps": (float(attack.num_steps),),
        "step_size": (attack.step_size,),
    }
    if attack.start_radius is not None:
        fixed["start_radius"] = (attack.start_radius,)
    if attack.momentum:
        fixed["momentum"] = (attack.momentum,)
    if attack.direction != "sign":
        fixed["direction"] = (float(DIRECTIONS.index(attack.direction)),)
    if attack.restarts > 1:
        fixed["restarts"] = (float(attack.restarts),)
    return fixed if config.strategy == "fixed" else {**fixed, **attack.grid}
