"""What of the strategies the host plans an attack's passes by, read from the device in one go."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lasat_ray.process_group import to_host
from lasat_ray.types import Strategy


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """``num_steps``, ``restarts`` and ``attack_loss`` [B] int64 on the host; None where the strategy has
    none, or one number of steps that the host knows."""

    num_steps: Tensor | None = None
    restarts: Tensor | None = None
    attack_loss: Tensor | None = None

    @classmethod
    def of(cls, strategy: Strategy) -> Plan:
        """The plan of strategies [B]; the host waits for them once, however many fields they have."""
        steps = None if strategy.common_steps is not None else strategy.num_steps
        found = {"num_steps": steps, "restarts": strategy.restarts, "attack_loss": strategy.attack_loss}
        asked = {name: value for name, value in found.items() if value is not None}
        if not asked:
            return cls()
        values = list(asked.values())
        told = to_host(values[0][None] if len(values) == 1 else torch.stack(values))
        return cls(**dict(zip(asked, told.unbind(), strict=True)))
