"""The check of a credit: against brute force, on credits known to be right and wrong."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from lasat_ray.attacks.objectives import cross_entropy
from lasat_ray.config import LossConfig, RewardConfig
from lasat_ray.methods import METHODS
from lasat_ray.process_group import ProcessGroup
from lasat_ray.types import Batch, Strategy
from lasat_ray.update.credit import influence
from lasat_ray.update.credit_check import GROUPS, credit_correlation
from lasat_ray.update.reward import reward_terms
from lasat_ray.update.task import Task
from tests.support.helpers import attacked

CONFIG, LOSS, LR = RewardConfig(alpha=1.3, beta=0.7), LossConfig(), 1e-3


def case() -> tuple[nn.Module, Task, Tensor]:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(48, 16), nn.Tanh(), nn.Linear(16, 4)).double()
    x = torch.rand(24, 3, 4, 4, dtype=torch.float64)
    batch = Batch(x=x, y=torch.randint(4, (24,)), index=torch.randperm(100)[:24], global_size=24)
    ones = torch.ones(24, dtype=torch.float64)
    strategy = Strategy(eps=ones, num_steps=ones.long(), step_size=ones)
    x_adv, x_ref = (x + 0.3 * torch.rand(2, *x.shape, dtype=torch.float64)).clamp(0, 1)
    return (
        net,
        Task(method=METHODS["pgd-at"], attacked=attacked(batch, x_adv, strategy)),
        x_ref,
    )


def effects(net: nn.Module, task: Task, x_ref: Tensor) -> Tensor:
    """By hand: what each group's share of one SGD step did to the mean outcome."""
    batch = task.attacked.batch

    def outcome(keep_B: Tensor) -> Tensor:
        stepped = copy.deepcopy(net)
        optimizer = torch.optim.SGD(stepped.parameters(), lr=LR)
        (cross_entropy(stepped(task.attacked.x_adv), batch.y)[keep_B].sum() / 24).backward()
        optimizer.step()
        with torch.no_grad():
            ref, clean = (cross_entropy(stepped(images), batch.y) for images in (x_ref, batch.x))
        return -(1.3 * ref + 0.7 * clean).mean()

    everyone = torch.ones(24, dtype=torch.bool)
    return torch.stack([outcome(everyone) - outcome(batch.index % GROUPS != g) for g in range(GROUPS)])


def check(net: nn.Module, task: Task, credit: Tensor, x_ref: Tensor) -> float:
    return float(credit_correlation(net, task, credit, x_ref, LOSS, CONFIG, lr=LR, group=ProcessGroup()))


def test_it_is_the_correlation_with_what_leaving_a_group_out_does():
    net, task, x_ref = case()
    credit = torch.rand(24, dtype=torch.float64)
    sums = torch.stack([credit[task.attacked.batch.index % GROUPS == g].sum() for g in range(GROUPS)])
    expected = torch.corrcoef(torch.stack([sums, effects(net, task, x_ref)]))[0, 1]
    assert check(net, task, credit, x_ref) == pytest.approx(float(expected), abs=1e-6)


def test_influence_agrees_with_what_happens_and_its_negative_does_not():
    net, task, x_ref = case()
    terms = reward_terms(net, task.attacked.batch, x_ref, task.attacked.batch.x[:, 0, 0, 0], graph=True)
    found = influence(net, task, 1.3 * terms.l2 + 0.7 * terms.l3, LOSS, ProcessGroup())
    assert check(net, task, found, x_ref) > 0.999
    assert check(net, task, -found, x_ref) < -0.999


def test_a_constant_credit_correlates_with_nothing_and_the_net_stays_as_it_was():
    net, task, x_ref = case()
    before = copy.deepcopy(net.state_dict())
    equal = torch.bincount(task.attacked.batch.index % GROUPS, minlength=GROUPS)
    credit = 1.0 / equal[task.attacked.batch.index % GROUPS].double()
    assert check(net, task, credit, x_ref) == 0.0
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
