"""TorchRL on the environment, unchanged: pip install torchrl.

python -m examples.torchrl_on_our_env --updates 4

``GymWrapper`` gives TorchRL one image at a time; an episode is one step, so that the loss is REINFORCE's
with the mean return of a rollout as its baseline. For batches on a GPU see
``examples/cleanrl_ppo_on_our_env.py``: that environment speaks torch already.
"""

import argparse

import gymnasium
import torch
from tensordict.nn import TensorDictModule
from torch import nn
from torchrl.envs import GymWrapper
from torchrl.envs.utils import check_env_specs


class Policy(nn.Module):
    """Images [..., C,H,W] -> an index for each field [..., K], and the log-probability of all [...]."""

    def __init__(self, pixels: int, sizes: list[int]):
        super().__init__()
        self.sizes = sizes
        self.net = nn.Sequential(nn.Flatten(-3), nn.Linear(pixels, 32), nn.Tanh(), nn.Linear(32, sum(sizes)))

    def heads(self, x):
        return [torch.distributions.Categorical(logits=z) for z in self.net(x).split(self.sizes, -1)]

    def forward(self, x):
        return torch.stack([head.sample() for head in self.heads(x)], -1)

    def log_prob(self, x, action):
        return sum(head.log_prob(a) for head, a in zip(self.heads(x), action.unbind(-1), strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--updates", type=int, default=4)
    parser.add_argument("--steps", type=int, default=16)
    args = parser.parse_args()
    torch.manual_seed(0)
    made = gymnasium.make("lasat_ray:lasat/AttackStrategy-v0", recipe="digits")
    env = GymWrapper(made, categorical_action_encoding=True)
    check_env_specs(env)
    pixels = made.observation_space.shape
    policy = Policy(int(torch.tensor(pixels).prod()), made.action_space.nvec.tolist())
    acting = TensorDictModule(policy, in_keys=["observation"], out_keys=["action"])
    optimizer = torch.optim.Adam(policy.parameters(), lr=1e-2)
    for _ in range(args.updates):
        with torch.no_grad():
            seen = env.rollout(args.steps, acting, break_when_any_done=False)
        reward = seen["next", "reward"][:, 0]
        loss = -((reward - reward.mean()) * policy.log_prob(seen["observation"], seen["action"])).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(f"steps {args.updates * args.steps}, mean reward {float(reward.mean()):.4f}")


if __name__ == "__main__":
    main()
