"""A learner from outside the project, held to its contract at every call."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from lasat_ray.learners.base import Learner, LearnerContext
from lasat_ray.plugins import Plugin, checked_state, shown
from lasat_ray.rng import RandomKey
from lasat_ray.types import Action, LearnerReport, Rollout


class OutsideLearner:
    """``learner`` as everyone else sees it: what it raises or returns wrongly is a UserError that names it.

    ``act_to_learn`` and ``greedy`` are there where it has them; whatever else it has can be read.
    """

    def __init__(self, learner: Learner, plugin: Plugin, context: LearnerContext):
        self._learner, self._plugin = learner, plugin
        self._sizes = context.space.sizes
        for name in ("act_to_learn", "greedy"):
            if hasattr(learner, name):
                setattr(self, name, partial(self._acted, name))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._learner, name)

    def act(self, x: Tensor, index: Tensor, key: RandomKey) -> Action:
        """As ``Learner.act``: x [B,C,H,W], index [B] -> index [B,K]."""
        return self._acted("act", x, index, key)

    def _acted(self, what: str, x: Tensor, *rest: Any) -> Action:
        with self._plugin.call(what):
            action = getattr(self._learner, what)(x, *rest)
        if not isinstance(action, Action):
            raise self._plugin.fault(f"{what} returned {shown(action)}", "return a lasat_ray.types.Action")
        self._check(what, action, len(x))
        return action

    def _check(self, what: str, action: Action, count: int) -> None:
        index, wanted = action.index, (count, len(self._sizes))
        if not isinstance(index, Tensor) or tuple(index.shape) != wanted or index.dtype != torch.int64:
            told = f"{what} returned an index that is {shown(index)}"
            raise self._plugin.fault(told, f"return torch.int64 of {wanted}")
        most = torch.tensor(self._sizes, device=index.device)
        bad = ((index < 0) | (index >= most)).nonzero()
        if len(bad):
            row, field = bad[0].tolist()
            told = f"{what} returned {int(index[row, field])} for field {field} of image {row}"
            raise self._plugin.fault(told, f"choose one of its values, 0 to {self._sizes[field] - 1}")
        log_prob = action.log_prob
        sound = isinstance(log_prob, Tensor) and log_prob.shape == (count,) and log_prob.is_floating_point()
        if not sound:
            told = f"{what} returned a log_prob that is {shown(log_prob)}"
            raise self._plugin.fault(told, f"return floating-point numbers of {(count,)}")

    def update(self, rollout: Rollout) -> LearnerReport:
        """As ``Learner.update``; the report holds tensors [B] and 0-d ones."""
        with self._plugin.call("update"):
            report = self._learner.update(rollout)
        if not isinstance(report, LearnerReport):
            told = f"update returned {shown(report)}"
            raise self._plugin.fault(told, "return a lasat_ray.types.LearnerReport, an empty one will do")
        shapes = {"per_image": (len(rollout.reward),), "scalars": ()}
        for part, shape in shapes.items():
            for name, value in getattr(report, part).items():
                if not isinstance(value, Tensor) or tuple(value.shape) != shape:
                    told = f"update reported {part} '{name}' as {shown(value)}"
                    raise self._plugin.fault(told, f"report a tensor of {shape}")
        return report

    def state_dict(self) -> dict[str, Any]:
        """As ``Learner.state_dict``: what a checkpoint can hold."""
        with self._plugin.call("state_dict"):
            state = self._learner.state_dict()
        return checked_state(state, "state_dict", self._plugin)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """As ``Learner.load_state_dict``."""
        with self._plugin.call("load_state_dict"):
            self._learner.load_state_dict(state)
