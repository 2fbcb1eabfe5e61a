"""skrl's PPO on the vector environment, unchanged: pip install skrl.

python -m examples.skrl_on_our_env --steps 32

An episode is one step, so that neither discounts nor advantages of later steps matter; a rollout is a few
batches of images. ``raw_reward=True`` leaves rewards as they are, so that curves of returns mean something.
"""

import argparse
import warnings

import gymnasium
import torch
from skrl.agents.torch.ppo import PPO
from skrl.envs.wrappers.torch import wrap_env
from skrl.memories.torch import RandomMemory
from skrl.models.torch import DeterministicMixin, Model, MultiCategoricalMixin
from skrl.trainers.torch import SequentialTrainer
from torch import nn

import lasat_ray


class Policy(MultiCategoricalMixin, Model):
    """Images, flattened by skrl [B,C*H*W] -> logits of every field's options, side by side [B,sum]."""

    def __init__(self, spaces):
        Model.__init__(self, **spaces)
        MultiCategoricalMixin.__init__(self)
        options = int(sum(spaces["action_space"].nvec))
        self.net = nn.Sequential(nn.Linear(self.num_observations, 64), nn.Tanh(), nn.Linear(64, options))

    def compute(self, inputs, role=""):
        return self.net(inputs["observations"]), {}


class Value(DeterministicMixin, Model):
    """Images [B,C*H*W] -> what an attack on each is expected to earn [B,1]."""

    def __init__(self, spaces):
        Model.__init__(self, **spaces)
        DeterministicMixin.__init__(self)
        self.net = nn.Sequential(nn.Linear(self.num_observations, 64), nn.Tanh(), nn.Linear(64, 1))

    def compute(self, inputs, role=""):
        return self.net(inputs["observations"]), {}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=32)
    parser.add_argument("--num-envs", type=int, default=16)
    args = parser.parse_args()
    torch.manual_seed(0)
    warnings.filterwarnings("ignore", "To copy construct from a tensor")  # skrl makes tensors of our tensors
    made = gymnasium.make_vec(
        "lasat_ray:lasat/AttackStrategy-v0",
        vectorization_mode="vector_entry_point",
        num_envs=args.num_envs,
        config=lasat_ray.recipe("digits", batch_size=args.num_envs, update_interval=1),
        raw_reward=True,
    )
    env = wrap_env(made, wrapper="gymnasium", verbose=False)
    spaces = {
        "observation_space": env.observation_space,
        "action_space": env.action_space,
        "device": env.device,
    }
    agent = PPO(
        models={"policy": Policy(spaces), "value": Value(spaces)},
        memory=RandomMemory(memory_size=4, num_envs=args.num_envs, device=env.device),
        cfg={
            "rollouts": 4,
            "learning_epochs": 2,
            "experiment": {"write_interval": 0, "checkpoint_interval": 0},
        },
        **spaces,
    )
    told = {"timesteps": args.steps, "headless": True, "disable_progressbar": True}
    SequentialTrainer(env=env, agents=agent, cfg=told).train()
    with torch.no_grad():
        images, _ = env.reset()
        action, _ = agent.act(images, None, timestep=args.steps, timesteps=args.steps)
        _, reward, *_ = env.step(action)
    print(f"images {args.steps * args.num_envs}, mean reward {float(reward.mean()):.4f}")


if __name__ == "__main__":
    main()
