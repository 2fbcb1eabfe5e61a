"""The contextual bandit as Gymnasium environments: a door to ``lasat_ray.env``.

``gymnasium.make("envs:lasat/AttackStrategy-v0")`` gives one image at a time in NumPy;
``gymnasium.make_vec("envs:lasat/AttackStrategy-v0", num_envs=32,
vectorization_mode="vector_entry_point")`` gives the torch batch that the trainer steps.
The prefix ``envs:`` imports this package, which registers the id. Outside of a clone, where lasat-ray is
installed, the prefix is ``lasat_ray:``.
"""

from lasat_ray import ENV_ID
from lasat_ray.env import AttackStrategyEnv, AttackStrategyVectorEnv, make_env, make_vector_env

__all__ = ["ENV_ID", "AttackStrategyEnv", "AttackStrategyVectorEnv", "make_env", "make_vector_env"]
