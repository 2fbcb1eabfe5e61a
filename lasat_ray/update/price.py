"""What a pass is worth: the price of an attack's cost, in units of its gain.

Rounds follow one another and each takes the time that its attack takes. With a fixed budget of compute the
best policy maximizes E[gain] / E[cost], and by Dinkelbach (1967) that is the policy that maximizes
E[gain - rho cost] at rho = E[gain] / E[cost]: the average-reward criterion of a semi-Markov process.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lasat_ray.process_group import ProcessGroup

_DECAY = 0.9  # of the running averages, a rewarded round
_TARGET_RATE = 0.1  # by which the price follows a cost that is off its target, a rewarded round
_LARGEST = 6.0  # of the logarithm of the multiplier that holds a cost target


class Price:
    """The running price rho, the same on every worker; asks the device for nothing.

    Without ``cost_target`` it is the ratio of mean gain to mean cost, and 0 while the mean gain is
    negative: where every attack does harm, none should be chosen for being long. With it the price is a
    multiplier that rises while the mean cost (passes per image) is above the target and falls while it is
    below, in units of the mean size of a gain.
    """

    def __init__(self, cost_target: float = 0.0):
        self.cost_target = cost_target
        self.means: Tensor | None = None
        """Running [gain, size of a gain, cost]."""
        self.log_multiplier: Tensor | None = None
        self._round: int | None = None

    def update(
        self, round: int, gain_B: Tensor, cost_B: Tensor, global_size: int, group: ProcessGroup
    ) -> Tensor:
        """Take a round's gains [B] and costs [B] in; returns the price, 0-d. Once a round: a second
        evaluation of the same round finds the price as it is."""
        if round != self._round:
            sums = torch.stack([gain_B.double().sum(), gain_B.double().abs().sum(), cost_B.double().sum()])
            now = group.sum(sums) / global_size
            self.means = now if self.means is None else _DECAY * self.means + (1 - _DECAY) * now
            if self.cost_target:
                before = torch.zeros_like(now[0]) if self.log_multiplier is None else self.log_multiplier
                step = _TARGET_RATE * (now[2] / self.cost_target - 1)
                self.log_multiplier = (before + step).clamp(-_LARGEST, _LARGEST)
            self._round = round
        return self.value().to(gain_B.dtype)

    def value(self) -> Tensor:
        """The price now, 0-d float64; 0 before the first rewarded round."""
        if self.means is None:
            return torch.zeros((), dtype=torch.float64)
        gain, size, cost = self.means.unbind()
        if self.log_multiplier is not None:
            return self.log_multiplier.exp() * size / cost
        return gain.clamp(min=0) / cost

    def state_dict(self) -> dict[str, Any]:
        """The running means and the multiplier."""
        return {"means": self.means, "log_multiplier": self.log_multiplier, "round": self._round}

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        """Restore what ``state_dict`` returned."""
        names = ("means", "log_multiplier")
        self.means, self.log_multiplier = (
            None if state[name] is None else state[name].to(device) for name in names
        )
        self._round = state["round"]
