"""The contextual bandit as Gymnasium environments: one core that the trainer steps, and its doors."""

from lasat_ray import ENV_ID
from lasat_ray.env.attack_strategy import AttackStrategyVectorEnv
from lasat_ray.env.build import build_game, build_round, dtype_of, make_env, make_vector_env
from lasat_ray.env.one_image import AttackStrategyEnv

__all__ = [
    "ENV_ID",
    "AttackStrategyEnv",
    "AttackStrategyVectorEnv",
    "build_game",
    "build_round",
    "dtype_of",
    "make_env",
    "make_vector_env",
]
