"""What happens when a number of the training turns into nan or infinity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True, slots=True)
class NumericsConfig:
    """Nan or infinity in logits, losses, rewards or gradients; looked for in every round."""

    on_nan: Literal["stop", "skip", "rollback"] = "stop"
    """stop: end the run with an error; skip: leave the batch out; rollback: to the last checkpoint."""
    rollback_factor: float = 0.5
    """rollback: the target's learning rate is multiplied by this each time."""
    max_faults: int = 10
    """skip, rollback: how many such rounds are mended before the run stops after all."""
