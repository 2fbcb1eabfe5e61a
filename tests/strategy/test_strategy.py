"""Sampling, log-probabilities and entropy against torch.distributions; decoding; the uniform start."""

import math

import pytest
import torch
from scipy import stats
from torch import nn
from torch.distributions import Categorical

from lasat_ray.learners.base import draw
from lasat_ray.rng import RandomKey
from lasat_ray.strategy import StrategyNet, StrategySpace
from lasat_ray.strategy.net import entropy, log_prob, sample
from tests.support.helpers import close, golden

F64 = torch.float64
GRID = {"step_size": (0.05, 0.1), "eps": (0.1, 0.2, 0.3), "num_steps": (3.0, 5.0, 9.0, 14.0)}


def space_of(grid=GRID, dtype=F64):
    return StrategySpace.of(grid, device="cpu", dtype=dtype)


def random_heads(count, sizes, seed=0, scale=2.0):
    g = torch.Generator().manual_seed(seed)
    return [torch.log_softmax(scale * torch.randn(count, size, generator=g, dtype=F64), 1) for size in sizes]


def test_sampled_frequencies_are_the_probabilities():
    count = 20_000
    heads = [head.expand(count, -1) for head in random_heads(1, (2, 3, 12), seed=1, scale=1.0)]
    u = RandomKey.of(0, "test").uniform(torch.arange(count), (3,), F64)
    action = sample(heads, u)
    for k, head in enumerate(heads):
        counts = torch.bincount(action[:, k], minlength=head.shape[1])
        assert stats.chisquare(counts.numpy(), (head[0].exp() * count).numpy()).pvalue > 1e-3
    table = torch.zeros(2, 3)
    for a, b in action[:, :2].tolist():
        table[a, b] += 1
    assert stats.chi2_contingency(table.numpy()).pvalue > 1e-3


def test_the_distribution_function_is_inverted_at_its_edges():
    head = torch.tensor([[0.25, 0.5, 0.25]], dtype=F64).log()
    almost_1 = 1 - 2.0**-24
    for u, option in [(0.0, 0), (0.2499, 0), (0.2501, 1), (0.7499, 1), (0.7501, 2), (almost_1, 2)]:
        assert sample([head], torch.tensor([[u]], dtype=F64)).item() == option, u


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_an_option_without_probability_is_never_drawn(dtype):
    inf = float("inf")
    head = torch.log_softmax(torch.tensor([[-inf, 1.0, -inf, 1.0, -inf]], dtype=dtype), 1)
    grid = torch.cat([torch.linspace(0, 1, 999, dtype=F64)[:-1], torch.tensor([1 - 2.0**-24], dtype=F64)])
    drawn = {int(sample([head], u.view(1, 1))) for u in grid}
    assert drawn == {1, 3}


def test_many_options_in_float32_stay_in_range():
    """The rounded probabilities may add up to less than u: the last option takes what is left."""
    head = torch.log_softmax(torch.randn(50, 300, generator=torch.Generator().manual_seed(0)), 1) - 1e-4
    action = sample([head], torch.full((50, 1), 1 - 2.0**-24, dtype=F64))
    assert (action == 299).all()


def test_log_prob_and_entropy_are_those_of_categorical():
    heads = random_heads(9, (1, 2, 5, 12))
    dists = [Categorical(logits=head) for head in heads]
    action = torch.stack([dist.sample() for dist in dists], 1)
    expected = sum(dist.log_prob(action[:, k]) for k, dist in enumerate(dists))
    close(log_prob(heads, action), expected)
    close(entropy(heads), sum(dist.entropy() for dist in dists))


def test_an_untrained_net_is_exactly_uniform():
    torch.manual_seed(0)
    net = StrategyNet(nn.Sequential(nn.Flatten(), nn.Linear(64, 16)), 16, space_of()).double()
    heads = net(torch.rand(5, 1, 8, 8, dtype=F64))
    for head, size in zip(heads, (2, 3, 4), strict=True):
        close(head, torch.full((5, size), -math.log(size), dtype=F64), atol=1e-15)
    close(entropy(heads), torch.full((5,), math.log(24), dtype=F64))


def test_each_head_sees_the_image_and_only_its_own_weights():
    torch.manual_seed(0)
    net = StrategyNet(nn.Flatten(), 4, space_of()).double()
    x = torch.rand(3, 1, 2, 2, dtype=F64)
    net.heads[1].weight.data.normal_()
    heads = net(x)
    close(heads[1], torch.log_softmax(x.flatten(1) @ net.heads[1].weight.T, 1))
    assert not torch.equal(heads[1][0], heads[1][1])
    close(heads[0], torch.full((3, 2), -math.log(2), dtype=F64), atol=1e-15)


def test_acting_is_named_by_the_row_and_tells_its_own_log_prob():
    torch.manual_seed(0)
    net = StrategyNet(nn.Flatten(), 64, space_of()).double()
    for head in net.heads:
        head.weight.data.normal_()
    x, index = torch.rand(40, 1, 8, 8, dtype=F64), torch.arange(40) * 3
    key = RandomKey.of(0, "action", 0)
    net.requires_grad_(False)
    action = draw(net(x), index, key)
    close(action.log_prob, log_prob(net(x), action.index))
    order = torch.randperm(40)
    shuffled = draw(net(x[order]), index[order], key)
    assert torch.equal(shuffled.index, action.index[order])
    assert not torch.equal(draw(net(x), index, key.fold_in(1)).index, action.index)


def test_decoding_keeps_the_order_of_the_grid():
    space = space_of()
    assert space.names == ("step_size", "eps", "num_steps") and space.sizes == (2, 3, 4)
    strategy = space.decode(torch.tensor([[0, 2, 3], [1, 0, 0]]))
    close(strategy.step_size, torch.tensor([0.05, 0.1], dtype=F64))
    close(strategy.eps, torch.tensor([0.3, 0.1], dtype=F64))
    assert strategy.num_steps.tolist() == [14, 3] and strategy.num_steps.dtype == torch.int64
    assert [name for name, _ in strategy.items()] == ["eps", "num_steps", "step_size"]


@pytest.mark.parametrize("name", ["las_policy_loss", "las_policy_loss_trades"])
def test_decoding_is_the_published_codes(name):
    case = golden(name)
    fields = {"eps": "epsilon", "num_steps": "iters", "step_size": "step", "trades_beta": "beta"}
    fields = {ours: theirs for ours, theirs in fields.items() if f"{theirs}_types" in case}
    scale = {"eps": 255.0, "step_size": 255.0}
    grid = {
        ours: tuple((case[f"{theirs}_types"].double() / scale.get(ours, 1.0)).tolist())
        for ours, theirs in fields.items()
    }
    space = space_of(grid)
    action = torch.stack([case[f"action.{theirs}"] for theirs in fields.values()], 1)
    decoded = dict(space.decode(action).items())
    assert set(decoded) == set(fields)
    for ours, theirs in fields.items():
        close(decoded[ours].double() * scale.get(ours, 1.0), case[f"strategy_{theirs}"].double())
    greedy = case["logits.epsilon"].argmax(1)
    close(space.values[0][greedy] * 255, case["greedy_epsilon"].double())


def test_counts_are_per_option_in_the_order_of_the_heads():
    action = torch.tensor([[0, 2, 3], [1, 2, 0], [1, 0, 0]])
    assert space_of().counts(action).tolist() == [1, 2, 1, 0, 2, 2, 0, 0, 1]


def test_rows_of_a_strategy():
    strategy = space_of().decode(torch.tensor([[0, 2, 3], [1, 0, 0], [1, 1, 1]]))
    some = strategy[torch.tensor([2, 0])]
    assert some.num_steps.tolist() == [5, 14] and some.trades_beta is None
    assert strategy[strategy.eps > 0.15].num_steps.tolist() == [14, 5]
