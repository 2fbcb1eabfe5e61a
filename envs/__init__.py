"""The contextual bandit as Gymnasium environments.

``gymnasium.make("envs:lasat/AttackStrategy-v0")`` gives one image at a time in NumPy;
``gymnasium.make_vec("envs:lasat/AttackStrategy-v0", num_envs=32,
vectorization_mode="vector_entry_point")`` gives the torch batch that the trainer steps.
The prefix ``envs:`` imports this package, which registers the id.
"""

import gymnasium

ENV_ID = "lasat/AttackStrategy-v0"

if ENV_ID not in gymnasium.registry:
    gymnasium.register(
        id=ENV_ID,
        entry_point="envs.build:make_env",
        vector_entry_point="envs.build:make_vector_env",
    )
