"""Corrupted images made from clean ones by ``imagecorruptions-imaug``, an optional package."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import torch

from lasat_ray.data import Images
from lasat_ray.errors import UsageError, install
from lasat_ray.evaluation.corruptions import COMMON, source_of_clean
from lasat_ray.evaluation.spec import digest

PACKAGE = "imagecorruptions-imaug"
SMALLEST = 32
SEEDED = ("glass_blur", "impulse_noise")
"""Kinds that draw from a generator of their own, seeded by an argument."""


@dataclass(frozen=True, slots=True)
class MadeSource:
    """The common corruptions of some images. Each image's random numbers depend on the seed, the kind, the
    severity and its place alone. UsageError where the package is absent or the images are too small."""

    clean: Images
    seed: int
    kinds: tuple[str, ...] = COMMON
    made_by: str = field(init=False, default="")

    def __post_init__(self) -> None:
        try:
            object.__setattr__(self, "made_by", f"{PACKAGE} {version(PACKAGE)}")
        except PackageNotFoundError as error:
            raise UsageError(
                f"--corruptions: make needs {PACKAGE}, which is not installed; "
                f"{install('corruptions')}, or name a folder of CIFAR-10-C's .npy files"
            ) from error
        _, height, width = self.clean.image_shape
        if min(height, width) < SMALLEST:
            raise UsageError(
                f"--corruptions: make takes images of {SMALLEST}x{SMALLEST} or more and these are "
                f"{height}x{width}; name a folder of .npy files"
            )

    def told(self) -> dict[str, str]:
        return {"from": "made", "where": f"{self.made_by}, strengths of ImageNet-C"}

    def identity(self) -> str:
        return digest(["made", source_of_clean(self.clean), self.seed, self.made_by])

    def images(self, kind: str, severity: int) -> Images:
        corrupt, number = _library(), self.kinds.index(kind)
        out = torch.empty_like(self.clean.x)
        for row, x in enumerate(self.clean.x):
            state = np.random.SeedSequence([self.seed, number, severity, row]).generate_state(1)
            made = _corrupted(corrupt, x.permute(1, 2, 0).numpy(), kind, severity, int(state[0]))
            out[row] = torch.from_numpy(made).permute(2, 0, 1)[: len(x)]  # grey came back as three channels
        return Images(out, self.clean.y)


def _corrupted(corrupt: Callable[..., Any], x: np.ndarray, kind: str, severity: int, seed: int) -> np.ndarray:
    """x uint8 [H,W,1 or 3] -> uint8 [H,W,3]."""
    asked = {"seed": seed} if kind in SEEDED else {}
    with _numpy_seed(seed), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = np.array(corrupt(np.ascontiguousarray(x), corruption_name=kind, severity=severity, **asked))
    return made if made.ndim == 3 else np.stack([made] * 3, axis=-1)


@contextmanager
def _numpy_seed(seed: int) -> Iterator[None]:
    """The package draws from numpy's global generator, which is put back."""
    state = np.random.get_state()
    np.random.seed(seed % 2**32)
    try:
        yield
    finally:
        np.random.set_state(state)


def _library() -> Callable[..., Any]:
    """The package's one function; UsageError where what it needs cannot be imported."""
    try:
        from imagecorruptions import corrupt
    except (ImportError, OSError) as error:
        raise UsageError(
            f"--corruptions: {PACKAGE} cannot be imported ({error}); install it anew, "
            "or name a folder of CIFAR-10-C's .npy files"
        ) from error
    return partial(corrupt)
