"""What Gymnasium, and programs that know it, ask of the environment: one image in NumPy, a batch in torch."""

import copy
import dataclasses
import warnings

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

import envs
from lasat_ray.env.build import make_env
from lasat_ray.env.trial import check_replaced
from lasat_ray.errors import UsageError
from lasat_ray.recipes import RECIPES, get_recipe
from tests.support.helpers import make_game, make_images, small_config

NAME = f"envs:{envs.ENV_ID}"


def game():
    return make_game(small_config(precision="fp64", batch_size=16, update_interval=1))


@pytest.fixture
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.mark.usefixtures("no_warnings")
def test_gymnasiums_checker_is_content():
    env = gymnasium.make(NAME, config=small_config())
    check_env(env.unwrapped, skip_render_check=True)
    env.close()


@pytest.mark.usefixtures("no_warnings")
def test_one_image_at_a_time_is_the_same_game_in_numpy():
    env = gymnasium.make(NAME, config=small_config(), train_target=True)
    obs, _ = env.reset(seed=3)
    assert obs.dtype == np.float32 and env.observation_space.contains(obs)
    twin = copy.deepcopy(env.unwrapped.core)
    action = np.array([2, 1, 0])
    final, reward, ended, cut, info = env.step(action)
    _, rewards, _, _, infos = twin.step(torch.from_numpy(action)[None])
    assert np.array_equal(final, obs) and ended and not cut and isinstance(reward, float)
    assert reward == float(rewards[0]) and np.array_equal(info["x_adv"], infos["x_adv"][0].numpy())
    assert info["eps"] == np.float32(0.3) and info["num_steps"] == 2
    following, _ = env.reset()
    assert not np.array_equal(following, obs)


def test_one_image_is_paid_where_a_batch_would_be_standardized():
    """With mean 0 over a batch of one, every reward would be 0."""
    config = small_config(reward__credit="influence", reward__standardize=True, update_interval=1)
    env = gymnasium.make(NAME, config=config)
    env.reset(seed=0)
    _, reward, _, _, info = env.step(np.array([2, 1, 0]))
    assert reward == pytest.approx(float(info["l1"] + info["l2"] + info["l3"]), abs=1e-5) and reward != 0


@pytest.mark.usefixtures("no_warnings")
def test_the_batch_is_a_vector_env_of_torch_tensors():
    env = gymnasium.make_vec(
        NAME,
        num_envs=8,
        vectorization_mode="vector_entry_point",
        config=small_config(batch_size=8, update_interval=1),
        train_target=False,
    )
    assert env.num_envs == 8 and env.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    assert env.single_action_space.nvec.tolist() == [3, 3, 2] and env.action_space.shape == (8, 3)
    assert env.single_observation_space.shape == (1, 8, 8) and env.observation_space.shape == (8, 1, 8, 8)
    obs, info = env.reset(seed=0)
    assert isinstance(obs, torch.Tensor) and info == {} and obs.shape == (8, 1, 8, 8)
    assert env.observation_space.contains(obs.numpy())
    env.action_space.seed(0)
    for _ in range(2):
        before = obs
        obs, reward, ended, cut, info = env.step(torch.from_numpy(env.action_space.sample()))
        assert ended.all() and not cut.any() and info["final_obs"] is before
        assert reward.shape == (8,) and reward.isfinite().all() and reward.unique().numel() > 1
    env.close()


def test_num_envs_is_this_workers_share():
    assert game().num_envs == 16
    images = make_images(48)
    assert make_game(small_config(batch_size=48), images).num_envs == 48


def test_a_configuration_holds_or_is_refused():
    config = small_config(seed=5, precision="fp64", batch_size=16, update_interval=1)
    env = gymnasium.make_vec(NAME, num_envs=16, config=config, device="cpu")
    assert (env.config.seed, env.config.precision, env.num_envs) == (5, "fp64", 16)
    x, _ = env.reset()
    assert x.dtype == torch.float64 and env.observation_space.contains(x.numpy())
    assert gymnasium.make_vec(NAME, num_envs=16, config=config, seed=3).config.seed == 3
    with pytest.raises(UsageError, match=r"config.batch_size: 16 would be replaced by 1; give num_envs=16"):
        gymnasium.make_vec(NAME, config=config)
    with pytest.raises(UsageError, match=r"config.update_interval: 7 would be replaced by 1"):
        gymnasium.make_vec(NAME, num_envs=16, config=dataclasses.replace(config, update_interval=7))
    with pytest.raises(UsageError, match=r"config.strategy: fixed would be replaced by learned; give strat"):
        gymnasium.make_vec(NAME, num_envs=16, config=dataclasses.replace(config, strategy="fixed"))
    # What a recipe names by itself gives way.
    assert gymnasium.make_vec(NAME, num_envs=4, config=get_recipe("digits").config).num_envs == 4
    fixed = next(recipe.config for recipe in RECIPES.values() if recipe.config.strategy == "fixed")
    check_replaced(fixed, "strategy", "learned", "")


def test_a_lookahead_holds_or_is_refused(monkeypatch):
    """Without an update of the target only a copy can look ahead; with one either may."""
    copy = small_config(batch_size=16, update_interval=1, reward__lookahead="copy")
    real = dataclasses.replace(copy, reward=dataclasses.replace(copy.reward, lookahead="real"))
    for config, train_target in ((copy, False), (copy, True), (real, True)):
        env = gymnasium.make_vec(NAME, num_envs=16, config=config, train_target=train_target)
        assert env.config.reward.lookahead == config.reward.lookahead
    recipe = dataclasses.replace(RECIPES["digits"], config=copy)
    monkeypatch.setitem(RECIPES, "digits", recipe)
    with pytest.raises(UsageError, match=r"config.reward.lookahead: real would be replaced by copy; give re"):
        gymnasium.make_vec(NAME, num_envs=16, config=real)


@pytest.mark.parametrize(
    ("action", "told"),
    [
        (-1, r"action: num_steps: -1 of image 2 is outside 0\.\.2; give the place of one of its values"),
        (3, r"action: num_steps: 3 of image 2 is outside 0\.\.2"),
        (0.5, r"action: torch.float64 that are no whole numbers"),
        (float("nan"), r"action: torch.float64 that are no whole numbers"),
    ],
)
def test_an_action_that_the_grid_has_not_is_refused(action, told):
    env = game()
    actions = np.zeros((16, 3), dtype=type(action) if isinstance(action, float) else np.int64)
    actions[2, 1] = action
    with pytest.raises(UsageError, match=told):
        env.step(actions)
    assert env.round == 0
    with pytest.raises(UsageError, match=r"action: has shape \(3,\), not \(16, 3\)"):
        env.step(actions[2])
    one = make_env(config=small_config(update_interval=1))
    with pytest.raises(UsageError, match="action: "):
        one.step(actions[2])
    one.step(np.array([1.0, 0.0, 0.0]))  # whole numbers of another type


def test_torchrl_finds_how_the_env_resets():
    """``GymWrapper`` asks the env itself; TorchRL 0.14 rolls it out."""
    assert game().autoreset_mode is AutoresetMode.SAME_STEP
