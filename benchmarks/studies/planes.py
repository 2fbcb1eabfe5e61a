"""What the compute-robustness planes compare on each data set: strategies as flags of lasat_ray.train."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.studies.study import Judge

REFERENCE = "constant-10"
STEPS = (1, 2, 3, 5, 10)
"""What every grid here offers as numbers of steps."""


@dataclass(frozen=True, kw_only=True)
class Plane:
    """A data set and the strategies compared on it. ``of``: what it is, for the table's caption;
    ``needs_data``: it lies in a file that the command names."""

    rows: dict[str, tuple[str, ...]]
    told: dict[str, str]
    shared: tuple[str, ...]
    judge: Judge
    of: str
    needs_data: bool = False


_STEP = {1: 0.25, 2: 0.15, 3: 0.1, 5: 0.1, 10: 0.05}
"""Step size of the constants, in [0,1] pixels: what served each number of steps best on seeds 0 to 2."""
_GRID = "eps=0.25 num_steps=1,2,3,5,10 step_size=0.1,0.15,0.2,0.25"
_BY_STEPS = "eps=0.2 num_steps=1,2,3,5,10 step_size=0.1"
_PAID = (
    *("--learner", "ppo", "--reward.credit", "influence", "--reward.standardize", "--reward.l1-weight", "0"),
    *("--attack.grid", _GRID, "--policy.lr", "2e-3", "-k", "20"),
)
"""Chosen on seeds 0 to 3 (0 to 5 for the grid) among k = 5, 10 and 20, rates of 1e-3, 2e-3 and 5e-3, and
grids with eps of 0.2, 0.25 and 0.3 alone and mixed, with and without steps of 0.05."""
_LEARNED = ("--strategy", "learned", "--strategy-model", "tiny_cnn", *_PAID)
_HELDOUT = ("--reward.outcome", "heldout")
_RATE = ("--reward.objective", "rate")


def _constant(steps: int, size: float | str) -> tuple[str, ...]:
    return ("--strategy", "fixed", "--attack.num-steps", str(steps), "--attack.step-size", str(size))


_DIGITS = Plane(
    rows={
        **{f"constant-{steps}": _constant(steps, size) for steps, size in _STEP.items()},
        "constant-2-wide": (*_constant(2, _STEP[2]), "--attack.eps", "0.25"),
        "constant-10-wide": (*_constant(10, _STEP[10]), "--attack.eps", "0.25"),
        # 1.25 eps from a uniform start, constant-1, is random-start FGSM already.
        "n-fgsm": (
            *(*_constant(1, 0.2), "--attack.start", "uniform"),
            *("--attack.eps", "0.6", "--attack.start-radius", "0.4"),
        ),
        "fat": ("--method", "fat", *_constant(10, _STEP[10])),
        "free": ("--method", "free", *_constant(8, 0.2)),
        "atas-steps": ("--method", "atas-steps", *_constant(1, 0.4)),
        "curriculum": ("--strategy", "curriculum", "--attack.grid", _BY_STEPS),
        "margin": ("--strategy", "margin", "--attack.grid", _BY_STEPS),
        "random": ("--strategy", "random", "--attack.grid", _GRID),
        "class-wise": ("--strategy", "class-wise", *_PAID, *_RATE, *_HELDOUT),
        "class-wise-priced": (
            *("--strategy", "class-wise", *_PAID, *_RATE, *_HELDOUT, "--policy.initial-price", "2"),
        ),
        "total-batch": _LEARNED,
        "total-heldout": (*_LEARNED, *_HELDOUT),
        "rate-batch": (*_LEARNED, *_RATE),
        "rate-heldout": (*_LEARNED, *_RATE, *_HELDOUT),
        "rate-priced": (*_LEARNED, *_RATE, *_HELDOUT, "--policy.initial-price", "2"),
    },
    told={
        "constant-1": "constant, 1 step (random-start FGSM)",
        "constant-2-wide": "constant, 2 steps, trained at eps 0.25",
        "constant-10-wide": "constant, 10 steps, trained at eps 0.25",
        "n-fgsm": "noise FGSM",
        "fat": "FAT, up to 10 steps",
        "free": "free training, 8 replays",
        "atas-steps": "1 step as long as ATAS has it",
        "constant-10": "constant, 10 steps (PGD-AT)",
        "curriculum": "curriculum of 1, 2, 3, 5, 10 steps by the clock",
        "margin": "by the clean image's margin, 1 to 10 steps",
        "random": "random",
        "class-wise": "learned table per class, rate, outcome held out",
        "class-wise-priced": "learned table per class, cheap attacks first",
        "total-batch": "learned, total, outcome on the batch",
        "total-heldout": "learned, total, outcome held out",
        "rate-batch": "learned, rate, outcome on the batch",
        "rate-heldout": "learned, rate, outcome held out",
        "rate-priced": "**learned, rate, outcome held out, cheap attacks first** (the default)",
    },
    shared=("--recipe", "digits", "--evaluation.every", "5", "--evaluation.test-num-steps", "10"),
    # Targeted APGD is AutoAttack's strongest part on these nets, at a third of its price.
    judge=Judge(attacks=("clean", "pgd-50", "apgd-t"), n_autoattack=100),
    of="8x8 digits, L-inf 0.2",
)

_OWN = (
    *("--model", "resnet18-16", "--batch-size", "64"),
    *("--data.crop-padding", "2", "--evaluation.every", "5", "--evaluation.test-num-steps", "10"),
)


def _own_images(of: str, shared: tuple[str, ...]) -> Plane:
    """The recipes for images of one's own, and rivals, on small images."""
    grid = "eps=8/255 num_steps=1,2,3,5,10 step_size=4/255"
    return Plane(
        rows={
            "constant-10": ("--recipe", "images-las-at", *_constant(10, "2/255")),
            "constant-3": ("--recipe", "images-las-at", *_constant(3, "4/255")),
            "constant-2-wide": (
                "--recipe",
                "images-las-at",
                *_constant(2, "8/255"),
                "--attack.eps",
                "12/255",
            ),
            "curriculum": ("--recipe", "images-las-at", "--strategy", "curriculum", "--attack.grid", grid),
            "total-image": ("--recipe", "images-las-at"),
            "rate-priced": ("--recipe", "images-las-at-rate"),
        },
        told={
            "constant-2-wide": "constant, 2 steps, trained at eps 12/255",
            "constant-10": "constant, 10 steps (PGD-AT)",
            "curriculum": "curriculum of 1, 2, 3, 5, 10 steps by the clock",
            "total-image": "learned, the paper's grid and reward (`--recipe images-las-at`)",
            "rate-priced": "learned, rate, outcome held out, cheap attacks first (`--recipe images`)",
        },
        shared=(*_OWN, *shared),
        judge=Judge(attacks=("clean", "pgd-50", "apgd-t"), n_autoattack=200),
        of=of,
        needs_data=True,
    )


PLANES = {
    "digits": _DIGITS,
    "cifar10": _own_images(
        "CIFAR-10 re-encoded as JPEG and averaged to 16x16 pixels (not comparable with published numbers), "
        "L-inf 8/255",
        ("--data.flip",),
    ),
    "gtsrb": _own_images("GTSRB traffic signs at 32x32 pixels, 43 classes, L-inf 8/255", ("--data.no-flip",)),
}
