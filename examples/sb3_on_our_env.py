"""Stable-Baselines3 on the environment, unchanged: pip install '.[sb3]' in a clone.

python examples/sb3_on_our_env.py --algorithm PPO --steps 256

An episode is one image: its strategy is chosen, its attack run, its reward paid. The target net
stands still (``train_target=True`` lets it learn); ``--learner sb3:PPO`` of the trainer is the way
to let SB3 drive a whole training.
"""

import argparse

import gymnasium
from stable_baselines3 import A2C, PPO


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--algorithm", choices=("PPO", "A2C"), default="PPO")
    parser.add_argument("--steps", type=int, default=256)
    args = parser.parse_args()
    env = gymnasium.make("lasat_ray:lasat/AttackStrategy-v0", recipe="digits")
    kind, settings = {"PPO": (PPO, {"n_steps": 64, "batch_size": 32}), "A2C": (A2C, {"n_steps": 16})}[
        args.algorithm
    ]
    # One step an episode: nothing to discount.
    model = kind("MlpPolicy", env, gamma=0.0, seed=0, device="cpu", **settings)
    model.learn(args.steps)
    image, _ = env.reset(seed=1)
    action, _ = model.predict(image, deterministic=True)
    _, reward, _, _, info = env.step(action)
    print(f"steps {model.num_timesteps}, eps {float(info['eps']):.3f}, reward {reward:.3f}")


if __name__ == "__main__":
    main()
