"""PPO in one file, in the manner of CleanRL, on the vector environment: torch tensors, no wrapper.

python -m examples.cleanrl_ppo_on_our_env --updates 20

Each step is a whole batch: one image an environment, one step an episode, so that advantages are rewards
less values. ``config=`` keeps every setting of a run; ``device=`` is where images, nets and actions lie;
``raw_reward=True`` leaves rewards as they are, so that the curve of mean returns can rise. The target
net stands still here (``train_target=True`` lets it learn).
"""

import argparse

import gymnasium
import torch
from torch import nn

import lasat_ray


class Agent(nn.Module):
    """Images [B,C,H,W] -> a categorical distribution for each field of the strategy, and a value [B]."""

    def __init__(self, envs: gymnasium.vector.VectorEnv):
        super().__init__()
        pixels = envs.single_observation_space.shape
        self.sizes = envs.single_action_space.nvec.tolist()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(int(torch.tensor(pixels).prod()), 64), nn.Tanh())
        self.actor, self.critic = nn.Linear(64, sum(self.sizes)), nn.Linear(64, 1)
        nn.init.zeros_(self.actor.weight)  # at first every strategy is as likely as any other
        nn.init.zeros_(self.actor.bias)

    def forward(self, x, action=None):
        hidden = self.body(x)
        heads = [torch.distributions.Categorical(logits=z) for z in self.actor(hidden).split(self.sizes, 1)]
        if action is None:
            action = torch.stack([head.sample() for head in heads], 1)
        log_prob = sum(head.log_prob(a) for head, a in zip(heads, action.T, strict=True))
        entropy = sum(head.entropy() for head in heads)
        return action, log_prob, entropy, self.critic(hidden)[:, 0]


def train(updates: int, num_envs: int, device: str, seed: int = 0) -> list[float]:
    """Mean return of every update."""
    torch.manual_seed(seed)
    envs = gymnasium.make_vec(
        "lasat_ray:lasat/AttackStrategy-v0",
        vectorization_mode="vector_entry_point",
        num_envs=num_envs,
        config=lasat_ray.recipe("digits", batch_size=num_envs, update_interval=1),
        device=device,
        raw_reward=True,
    )
    agent = Agent(envs).to(device)
    optimizer = torch.optim.Adam(agent.parameters(), lr=1e-2, eps=1e-5)
    returns = []
    x, _ = envs.reset(seed=seed)
    for _ in range(updates):
        with torch.no_grad():
            action, old_log_prob, _, value = agent(x)
        after, reward, *_ = envs.step(action)
        advantage = reward - value
        advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
        for _ in range(4):
            _, log_prob, entropy, value = agent(x, action)
            ratio = (log_prob - old_log_prob).exp()
            gain = torch.min(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage)
            loss = -gain.mean() + 0.5 * ((value - reward) ** 2).mean() - 0.01 * entropy.mean()
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(agent.parameters(), 0.5)
            optimizer.step()
        returns.append(float(reward.mean()))
        x = after
    return returns


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--updates", type=int, default=20)
    parser.add_argument("--num-envs", type=int, default=128)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    returns = train(args.updates, args.num_envs, args.device)
    print(f"updates {len(returns)}, mean return {returns[0]:.4f} -> {returns[-1]:.4f}")


if __name__ == "__main__":
    main()
