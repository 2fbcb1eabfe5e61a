"""Adversarial training in one step or none: random-start FGSM, noise FGSM, free training and the step sizes
of ATAS, on CIFAR-10.

Settings are those of the authors' scripts (``train_fgsm.py`` and ``train_free.py`` of Fast is better than
free, ``train.py`` of N-FGSM, ``ATAS_CIFAR.sh``): but for ATAS a triangular learning rate with its peak in the
middle of the run. What differs here: attacks see the net in eval mode (free training's come from the
training pass, as published), pixels are not standardized, arithmetic is fp32, and 2 % of the training images
choose the epoch that is kept, where the scripts keep the last.
"""

from __future__ import annotations

from dataclasses import replace

from lasat_ray.config import AttackConfig, EvalConfig, OptimConfig, SpeedConfig, TrainConfig
from lasat_ray.recipes.recipe import Recipe

EPS = 8 / 255


REPLAYS = 8


def _one_step(
    name: str, epochs: int, attack: AttackConfig, *, method: str = "pgd-at", lr: float = 0.2
) -> TrainConfig:
    return TrainConfig(
        recipe=name,
        method=method,
        dataset="cifar10",
        model="preact_resnet18",
        strategy="fixed",
        epochs=epochs,
        batch_size=128,
        attack=attack,
        # Their rate begins at 0; a first round at it would be wasted.
        optim=OptimConfig(lr=lr, schedule="one-cycle", warmup_epochs=epochs / 2, warmup_start=1e-3),
        speed=SpeedConfig(channels_last=True),
        evaluation=EvalConfig(test_num_steps=(10, 50)),
    )


def one_step_recipes() -> list[Recipe]:
    """Wong, Rice and Kolter 2020, de Jorge et al. 2022, Shafahi et al. 2019 and Huang et al. 2022."""
    random_start, noise = "fgsm-rs-cifar10-preactresnet18", "n-fgsm-cifar10-preactresnet18"
    free = "free-cifar10-preactresnet18"
    free_attack = AttackConfig(eps=EPS, num_steps=REPLAYS, step_size=EPS)
    return [
        Recipe(
            name=random_start,
            config=_one_step(
                random_start, 15, AttackConfig(eps=EPS, num_steps=1, step_size=1.25 * EPS, start="uniform")
            ),
            summary="random-start FGSM (Wong et al. 2020): one step of 1.25 eps from a uniform start",
            # PGD-50 of ten restarts; the paper and its repository name different clean accuracies.
            reported={"pgd50": 46.06, "time_min": 12.0},
            follows="code",
        ),
        Recipe(
            name=noise,
            config=_one_step(
                noise,
                30,
                # No clipping to eps: noise of 2 eps and a step of eps never leave the ball of 3 eps.
                AttackConfig(eps=3 * EPS, num_steps=1, step_size=EPS, start="uniform", start_radius=2 * EPS),
            ),
            summary="noise FGSM (de Jorge et al. 2022): noise of 2 eps, one step of eps, no clipping",
            follows="code",
        ),
        Recipe(
            name=free,
            # Their 11 passes over the images, each batch eight times.
            config=_one_step(free, 11 * REPLAYS, free_attack, method="free", lr=0.04),
            summary="free training (Shafahi et al. 2019; settings of Wong et al. 2020): each batch 8 times",
            follows="code",
        ),
        _adaptive(),
    ]


def _adaptive() -> Recipe:
    """The largest step is 2 eps, the shortest half, the longest 1.75 of eps."""
    name = "atas-steps-cifar10-preactresnet18"
    attack = AttackConfig(eps=EPS, num_steps=1, step_size=2 * EPS)
    optim = OptimConfig(lr=0.1, schedule="multistep", milestones=(24.0, 28.0))
    config = replace(_one_step(name, 30, attack, method="atas-steps"), optim=optim)
    told = "one step as long as ATAS (Huang et al. 2022) has it, from a random start"
    return Recipe(name=name, config=config, summary=told, follows="code")
