"""A learner of your own: epsilon-greedy on each strategy field's mean reward, blind to the image.

python -m lasat_ray.train --learner examples.own_learner:EpsilonGreedy --epochs 2
"""

import torch

from lasat_ray.learners import LearnerContext
from lasat_ray.types import Action, LearnerReport


class EpsilonGreedy:
    """Explores one choice in ten; otherwise takes each field's best value so far."""

    def __init__(self, context: LearnerContext):
        self.group, self.sizes = context.group, context.space.sizes
        self.total = [torch.zeros(size, device=context.device) for size in self.sizes]
        self.count = [torch.ones(size, device=context.device) for size in self.sizes]

    def act(self, x, index, key):
        u = key.uniform(index, (2, len(self.sizes)), torch.float64)
        columns = []
        for k, size in enumerate(self.sizes):
            best = (self.total[k] / self.count[k]).argmax()
            columns.append(torch.where(u[:, 0, k] < 0.1, (u[:, 1, k] * size).long(), best))
        return Action(index=torch.stack(columns, 1), log_prob=torch.zeros_like(x[:, 0, 0, 0]))

    def update(self, rollout):
        for k, (total, count) in enumerate(zip(self.total, self.count, strict=True)):
            taken = torch.nn.functional.one_hot(rollout.action[:, k], len(total)).to(total)
            total += self.group.sum(taken.T @ rollout.reward.to(total))  # over all workers
            count += self.group.sum(taken.sum(0))
        return LearnerReport()

    def state_dict(self):
        return {"total": self.total, "count": self.count}

    def load_state_dict(self, state):
        self.total, self.count = state["total"], state["count"]
