"""RLlib's PPO on the environment, unchanged: pip install '.[rllib]' in a clone.

python examples/rllib_on_our_env.py --iterations 1

Not ``ray[rllib]``: that pins an older Gymnasium, and RLlib runs on the present one.
"""

import argparse

import gymnasium
import ray
from ray.rllib.algorithms.ppo import PPOConfig
from ray.tune.registry import register_env


def make_env(_: object) -> gymnasium.Env:
    """Called by RLlib; images flat, since its default net for images wants larger ones."""
    env = gymnasium.make("lasat_ray:lasat/AttackStrategy-v0", recipe="digits")
    return gymnasium.wrappers.FlattenObservation(env)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--iterations", type=int, default=1)
    parser.add_argument("--steps", type=int, default=64, help="images an iteration")
    args = parser.parse_args()
    ray.init(address="local", include_dashboard=False, num_cpus=1, log_to_driver=False)
    register_env("AttackStrategy", make_env)
    config = (
        PPOConfig()
        .environment("AttackStrategy")
        .env_runners(num_env_runners=0)
        .learners(num_learners=0)
        .training(
            gamma=0.0, lr=1e-3, train_batch_size_per_learner=args.steps, minibatch_size=32, num_epochs=2
        )
    )
    algorithm = config.build_algo()
    for _ in range(args.iterations):
        result = algorithm.train()
    steps = result["num_env_steps_sampled_lifetime"]
    print(f"steps {int(steps)}, mean reward {result['env_runners']['episode_return_mean']:.3f}")
    algorithm.stop()
    ray.shutdown()


if __name__ == "__main__":
    main()
