"""The game: Gymnasium's contract, a whole round against one written by hand, rewards and resumption."""

import copy

import gymnasium
import numpy as np
import pytest
import torch
import torch.nn.functional as F

import envs
from lasat_ray.recipes import get_recipe
from lasat_ray.rng import RandomKey
from tests.support.helpers import close, make_game, plain_pgd, small_config

F64 = torch.float64
NAME = f"envs:{envs.ENV_ID}"
GAME = {"precision": "fp64", "batch_size": 16, "update_interval": 1}


def game(**changes):
    return make_game(small_config(**{**GAME, **changes}))


def actions_for(env, seed=0):
    g = torch.Generator().manual_seed(seed)
    columns = [torch.randint(0, size, (env.num_envs,), generator=g) for size in env.space.sizes]
    return torch.stack(columns, 1)


def state_of(net):
    return {name: value.clone() for name, value in net.state_dict().items()}


def unchanged(net, state):
    return all(torch.equal(value, state[name]) for name, value in net.state_dict().items())


class ByHand:
    """The target net's side of a round: attack, SGD with momentum, reference attack, L1, L2, L3."""

    def __init__(self, env):
        self.net = copy.deepcopy(env.net)
        self.momenta = [torch.zeros_like(p) for p in self.net.parameters()]
        self.config = env.config

    def attack(self, batch, deltas, eps, step_size, num_steps):
        self.net.eval()
        images = [
            plain_pgd(self.net, x, y, delta, float(e), float(s), int(n))
            for x, y, delta, e, s, n in zip(batch.x, batch.y, deltas, eps, step_size, num_steps, strict=True)
        ]
        return torch.stack(images)

    def train(self, batch, x_adv, rate, momentum, decay, smoothing):
        """L1 [B], and the net one step further."""
        self.net.train()
        logits = self.net(x_adv)
        l1 = F.cross_entropy(logits, batch.y, reduction="none").detach()
        loss = F.cross_entropy(logits, batch.y, label_smoothing=smoothing * 4 / 3)
        grads = torch.autograd.grad(loss, list(self.net.parameters()))
        with torch.no_grad():
            for parameter, grad, memory in zip(self.net.parameters(), grads, self.momenta, strict=True):
                memory.mul_(momentum).add_(grad + decay * parameter)
                parameter.sub_(rate * memory)
        return l1

    def look(self, batch, key):
        """L2 and L3 [B] of the net as it is now."""
        reward = self.config.reward
        noise = key.uniform(batch.index, tuple(batch.x.shape[1:]), F64) * 2 - 1
        starts = torch.clamp(noise * reward.ref_eps, -batch.x, 1 - batch.x)
        size = len(batch.x)
        full = torch.ones(size, dtype=F64)
        x_ref = self.attack(
            batch, starts, full * reward.ref_eps, full * reward.ref_step_size, [reward.ref_num_steps] * size
        )
        self.net.eval()
        with torch.no_grad():
            logits = self.net(x_ref), self.net(batch.x)
        return tuple(-F.cross_entropy(each, batch.y, reduction="none") for each in logits)


WEIGHTS = {"reward__alpha": 0.7, "reward__beta": 1.3, "reward__l1_weight": 0.9, "loss__label_smoothing": 0.2}


def test_two_rounds_with_the_real_lookahead_by_hand():
    env = game(attack__start="zero", optim__weight_decay=0.01, optim__lr=0.1, **WEIGHTS)
    hand = ByHand(env)
    for round in range(2):
        batch, action = env.batch, actions_for(env, round)
        rate = 0.1 * 0.5 * (1 + np.cos(np.pi * (round / 3) / 2))  # cosine, 3 rounds an epoch, 2 epochs
        s = env.space.decode(action)
        x_adv = hand.attack(batch, torch.zeros_like(batch.x), s.eps, s.step_size, s.num_steps)
        l1 = hand.train(batch, x_adv, rate, 0.9, 0.01, 0.2)
        l2, l3 = hand.look(batch, RandomKey.of(0, "reference start", round))
        _, reward, ended, cut, info = env.step(action)
        close(info["x_adv"], x_adv)
        for name, value in (("l1", l1), ("l2", l2), ("l3", l3)):
            close(info[name], value)
        close(reward, 0.9 * l1 + 0.7 * l2 + 1.3 * l3)
        for ours, theirs in zip(env.net.parameters(), hand.net.parameters(), strict=True):
            close(ours.detach(), theirs.detach())
        assert ended.all() and not cut.any()


def test_a_rehearsal_by_hand_and_it_leaves_no_trace():
    env = game(
        attack__start="zero",
        reward__lookahead="copy",
        reward__copy_label_smoothing=0.3,
        reward__copy_weight_decay=0.02,
        optim__weight_decay=0.5,
        optim__lr=0.1,
        **WEIGHTS,
    )
    env.step(actions_for(env, 9))  # momentum that the copy must not use
    hand, batch, action = ByHand(env), env.batch, actions_for(env, 1)
    state, memory = state_of(env.net), copy.deepcopy(env.target.optimizer.state_dict())
    played = env.evaluate_on_copy(action)
    s = env.space.decode(action)
    x_adv = hand.attack(batch, torch.zeros_like(batch.x), s.eps, s.step_size, s.num_steps)
    l1 = hand.train(batch, x_adv, env.target.rate(1), 0.0, 0.02, 0.3)
    l2, l3 = hand.look(batch, RandomKey.of(0, "reference start", 1))
    close(played.rewarded.reward, 0.9 * l1 + 0.7 * l2 + 1.3 * l3)
    close(played.attacked.x_adv, x_adv)
    assert unchanged(env.net, state) and env.round == 1 and env.batch is batch
    after = env.target.optimizer.state_dict()["state"]
    assert all(torch.equal(memory["state"][n]["momentum_buffer"], after[n]["momentum_buffer"]) for n in after)


@pytest.mark.parametrize("lookahead", ["real", "copy"])
@pytest.mark.parametrize("changes", [{}, {"method": "trades"}, {"model": "small_cnn_bn"}], ids=str)
def test_the_reward_is_recomputed_from_what_info_tells(lookahead, changes):
    """From x_adv and the nets before and after alone; the reference attack does not matter here."""
    env = game(reward__lookahead=lookahead, reward__beta=2.0, reward__alpha=0.5, **changes)
    batch, before = env.batch, copy.deepcopy(env.net)
    _, reward, _, _, info = env.step(actions_for(env))
    before.train(lookahead == "real")
    with torch.no_grad():
        clean, adv = before(batch.x), before(info["x_adv"])
    l1 = F.cross_entropy(adv, batch.y, reduction="none")
    if "method" in changes:
        kl = F.kl_div(adv.log_softmax(1), clean.log_softmax(1), reduction="none", log_target=True).sum(1)
        l1 = F.cross_entropy(clean, batch.y, reduction="none") + 6.0 * kl
    close(info["l1"], l1)
    close(reward, info["l1"] + 0.5 * info["l2"] + 2.0 * info["l3"])
    if lookahead == "real":
        with torch.no_grad():
            close(info["l3"], -F.cross_entropy(env.net.eval()(batch.x), batch.y, reduction="none"))


@pytest.mark.parametrize("lookahead", ["real", "copy"])
def test_influence_is_paid_where_the_credit_says_so(lookahead):
    settings = {"reward__credit": "influence", "reward__standardize": True, "reward__l1_weight": 0.3}
    env = game(reward__lookahead=lookahead, **settings)
    _, reward, _, _, info = env.step(actions_for(env))
    z1, z2 = ((info[name] - info[name].mean()) / info[name].std(correction=0) for name in ("l1", "influence"))
    close(reward, 0.3 * z1 + z2, atol=1e-6)
    assert info["influence"].std() > 1e-4


def test_lookahead_copy_and_real_agree_where_momentum_and_decay_play_no_part():
    settings = {"optim__momentum": 0.0, "optim__weight_decay": 0.0}
    rewards = []
    for lookahead in ("real", "copy"):
        env = game(reward__lookahead=lookahead, **settings)
        rewards.append(env.step(actions_for(env))[1])
    close(rewards[0], rewards[1])


@pytest.mark.parametrize("interval", [1, 2, 3])
@pytest.mark.parametrize("lookahead", ["real", "copy"])
def test_rewards_come_in_every_kth_round_only(interval, lookahead):
    env = game(update_interval=interval, reward__lookahead=lookahead)
    due = []
    for round in range(6):
        assert env.is_reward_round == ((round + 1) % interval == 0)
        _, reward, _, _, info = env.step(actions_for(env, round))
        assert ("l1" in info) == ("l2" in info) == bool(reward.any())
        due.append("l1" in info)
    assert due == [(round + 1) % interval == 0 for round in range(6)]


@pytest.mark.parametrize("strategy", ["fixed", "random"])
def test_where_nobody_learns_nothing_is_paid(strategy):
    env = game(strategy=strategy)
    *_, info = env.step(torch.zeros(16, 3, dtype=torch.int64))
    assert not env.is_reward_round and "l1" not in info


def test_whoever_steps_gymnasiums_env_is_paid_every_time():
    env = gymnasium.make_vec(NAME, num_envs=4, vectorization_mode="vector_entry_point", recipe="digits")
    assert env.config.update_interval == 1 != get_recipe("digits").config.update_interval
    for _ in range(2):
        _, reward, *_ = env.step(torch.zeros(4, 3, dtype=torch.int64))
        assert reward.abs().min() > 0


def test_info_holds_a_row_for_each_image():
    env = game()
    x, y = env.batch.x, env.batch.y
    action = actions_for(env)
    net = copy.deepcopy(env.net)
    obs, reward, ended, cut, info = env.step(action)
    strategy = env.space.decode(action)
    for name in ("eps", "num_steps", "step_size"):
        assert torch.equal(info[name], getattr(strategy, name))
    for name in ("l1", "l2", "l3", "loss", "adv_correct", "ref_correct", "clean_correct"):
        assert info[name].shape == (16,), name
    assert info["x_adv"].shape == x.shape and info["final_obs"] is x and info["_final_obs"].all()
    assert torch.equal(info["adv_correct"], net.train()(info["x_adv"]).argmax(1) == y)
    assert reward.shape == ended.shape == cut.shape == (16,) and ended.dtype == cut.dtype == torch.bool
    assert obs is env.batch.x and not torch.equal(obs, x)


def test_going_to_a_round_gives_the_batches_of_having_played_there():
    played, jumped = game(), game()
    for round in range(7):
        jumped.seek(round)
        assert played.round == round
        for name in ("x", "y", "index"):
            assert torch.equal(getattr(played.batch, name), getattr(jumped.batch, name))
        played.step(actions_for(played, round))


def test_a_seed_names_the_order_of_the_batches_and_the_draws():
    env = game(attack__start="uniform")
    first, _ = env.reset(seed=5)
    x_adv = env.attack(env.space.decode(actions_for(env)))
    env.step(actions_for(env))
    other, _ = env.reset(seed=6)
    other_adv = env.attack(env.space.decode(actions_for(env)))
    again, _ = env.reset(seed=5)
    assert torch.equal(again, first) and not torch.equal(other, first) and env.round == 0
    assert (other_adv - other).abs().max() > 0.05
    fresh = game(attack__start="uniform")
    fresh.reset(seed=5)
    assert torch.equal(fresh.attack(fresh.space.decode(actions_for(fresh))), x_adv)
    unseeded, _ = env.reset()
    assert unseeded is env.batch.x


def test_an_image_starts_anew_in_every_epoch():
    """48 images in batches of 16: rounds 0 to 2 show each image once, and 3 to 5 again."""
    tiny_step = {"eps": (0.3,), "num_steps": (1.0,), "step_size": (1e-9,)}
    env = game(attack__start="uniform", attack__grid=tiny_step)
    starts = {}
    for round in range(6):
        env.seek(round)
        delta = env.attack(env.space.decode(torch.zeros(16, 3, dtype=torch.int64))) - env.batch.x
        for n, image in zip(env.batch.index.tolist(), delta, strict=True):
            starts.setdefault(n, []).append(image)
    assert len(starts) == 48
    assert all((first - second).abs().mean() > 0.01 for first, second in starts.values())


def test_a_resting_target_stays_and_is_still_looked_ahead_from():
    env = make_game(small_config(**GAME, reward__lookahead="copy"), train_target=False)
    state = state_of(env.net)
    rewards = [env.step(actions_for(env, round))[1] for round in range(3)]
    assert unchanged(env.net, state) and all(reward.abs().min() > 0 for reward in rewards)
    with pytest.raises(
        ValueError, match=r"train_target: False has no update .*; set reward.lookahead 'copy'"
    ):
        make_game(small_config(**GAME), train_target=False)


def test_clean_training_attacks_nothing():
    env = game(method="clean", strategy="fixed")
    batch = env.batch
    *_, info = env.step(torch.zeros(16, 3, dtype=torch.int64))
    assert torch.equal(info["x_adv"], batch.x)


def test_the_rehearsals_attack_and_the_real_one_start_apart():
    env = game(reward__lookahead="copy", attack__start="uniform")
    state = state_of(env.net)
    evaluated = env.evaluate_on_copy(actions_for(env))
    assert unchanged(env.net, state)
    *_, info = env.step(actions_for(env))
    assert not torch.equal(evaluated.attacked.x_adv, info["x_adv"])


@pytest.mark.parametrize(
    ("kind", "least", "most"), [("zero", 0.0, 0.0), ("uniform", 0.02, 0.3), ("normal", 1e-4, 0.01)]
)
def test_the_configured_start_is_used(kind, least, most):
    env = game(attack__start=kind, attack__grid={"eps": (0.3,), "num_steps": (1.0,), "step_size": (1e-9,)})
    x_adv = env.attack(env.space.decode(torch.zeros(16, 3, dtype=torch.int64)))
    inside = (env.batch.x > 0.4) & (env.batch.x < 0.6)
    size = (x_adv - env.batch.x)[inside].abs()
    assert least <= size.mean() <= most + 1e-8
    assert size.amax() <= 0.3


@pytest.mark.parametrize("loss", ["ce", "kl", "margin", "method"])
def test_the_configured_attack_loss_is_used(loss):
    env, own = game(attack__loss=loss, attack__start="uniform"), game(attack__start="uniform")
    action = actions_for(env)
    same = torch.equal(env.attack(env.space.decode(action)), own.attack(own.space.decode(action)))
    assert same == (loss in ("ce", "method"))
