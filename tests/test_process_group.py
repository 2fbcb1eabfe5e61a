"""Two workers compute what one does: whole trainings in real processes, float64, uneven shards."""

import functools
import json

import pytest
import torch
import torch.multiprocessing as mp
import torch.nn.functional as F

from lasat_ray.config import EvalConfig, SpeedConfig
from lasat_ray.data import Images
from lasat_ray.evaluation import accuracy
from lasat_ray.models import AttackView, build_classifier
from lasat_ray.process_group import ProcessGroup, gradients
from lasat_ray.runs.folder import RunFolder
from tests.support.helpers import CPU, close, make_images
from tests.support.world_games import GAMES, RESUMED, STOP, config_of, slug, train, worker

SAME = [game for game in GAMES if game != "batch norm"]  # statistics of shares, as DDP has them
TIMES = ("train_seconds", "img_per_second")


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Results of two processes, by rank, and the folder they wrote."""
    root = tmp_path_factory.mktemp("two")
    for game in GAMES:
        RunFolder.create(root / slug(game), config_of(game))
    train(RESUMED, RunFolder.create(root / "resumed", config_of(RESUMED)), ProcessGroup(), stop_after=STOP)
    mp.spawn(worker, args=(2, str(root)), nprocs=2)
    ranks = [torch.load(root / f"rank{rank}.pt", weights_only=False) for rank in range(2)]
    return root, ranks


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """The same trainings by one worker, each made when first asked for."""

    @functools.cache
    def make(game):
        folder = RunFolder.create(tmp_path_factory.mktemp("one") / "run", config_of(game))
        return train(game, folder, ProcessGroup()), folder

    return make


def tensors_in(node, name=""):
    """Every tensor and number of a nested state, by path; times and places in files left out."""
    if isinstance(node, (torch.Tensor, int, float)):
        return {name: torch.as_tensor(node, dtype=torch.float64)}
    if isinstance(node, dict):
        items = [(key, node[key]) for key in node if key not in (*TIMES, "metrics_offset", "world_size")]
    else:
        items = list(enumerate(node)) if isinstance(node, (list, tuple)) else []
    return {path: value for key, child in items for path, value in tensors_in(child, f"{name}/{key}").items()}


def assert_close(actual, expected, atol=1e-10):
    actual, expected = tensors_in(actual), tensors_in(expected)
    assert actual.keys() == expected.keys() and len(actual) > 20
    for name, value in actual.items():
        torch.testing.assert_close(
            value, expected[name], rtol=0, atol=atol, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize("game", SAME)
def test_weights_of_both_nets_are_those_of_one_worker(game, one, two):
    _, ranks = two
    (alone, _) = one(game)
    for result in ranks:
        assert_close(result[game]["state"], alone["state"])


@pytest.mark.parametrize("game", GAMES)
def test_the_workers_agree_to_the_last_bit(game, two):
    """Statistics of batch norm, of both nets, included: only so do eval-mode attacks agree."""
    _, (first, second) = two
    assert_close(first[game]["state"], second[game]["state"], atol=0)
    names = tensors_in(first[game]["state"])
    assert any("running_var" in name for name in names) == game.startswith("batch norm")


@pytest.mark.parametrize("game", SAME)
def test_metrics_are_those_of_one_worker(game, one, two):
    """Rewards, losses, norms, option counts and accuracies, line by line."""
    root, _ = two
    _, folder = one(game)
    ours, theirs = (
        [r for r in map(json.loads, (path / "metrics.jsonl").read_text().splitlines()) if r["kind"] != "data"]
        for path in (root / slug(game), folder.path)
    )
    assert len(ours) == len(theirs) == 4 + 1 + 1 + 1
    assert sum("reward" in record for record in ours) == 4
    for a, b in zip(ours, theirs, strict=True):
        for record in (a, b):
            for name in (*TIMES, "num_workers"):
                record.pop(name, None)
        assert a.keys() == b.keys()
        assert_same_record(a, b)


def assert_same_record(a, b):
    for name, value in a.items():
        if isinstance(value, dict):
            assert_same_record(value, b[name])
        elif isinstance(value, list) and isinstance(value[0], list):
            assert_same_record(dict(enumerate(value)), dict(enumerate(b[name])))
        else:
            words = isinstance(value, str) or (isinstance(value, list) and isinstance(value[0], str))
            wanted = value if words else pytest.approx(value, rel=0, abs=1e-9)
            assert b[name] == wanted, name


def test_a_run_of_one_worker_can_be_continued_by_two(one, two):
    _, ranks = two
    (alone, _) = one(RESUMED)
    for result in ranks:
        assert_close(result["resumed"]["state"], alone["state"])
        assert result["resumed"]["summary"]["num_workers"] == 2


@pytest.mark.parametrize(
    ("net", "convs"), [("target", "backbone.convs."), ("strategy", "features.backbone.convs.")]
)
def test_batch_statistics_weigh_each_shard_by_its_images(net, convs, two):
    """The first layer's, by hand: its input depends on no other statistics."""
    _, ranks = two
    results = [result["statistics"] for result in ranks]
    assert [len(result["seen"][net]) for result in results] == [3, 4]
    weight = results[0]["before"][net][f"{convs}0.weight"]
    hidden = [F.conv2d(result["seen"][net], weight, padding=1) for result in results]
    if net == "strategy":  # followed over the global batch as one, and taken over at the first update
        values = torch.cat(hidden).transpose(0, 1).flatten(1)
        for result in results:
            close(result["after"][net][f"{convs}1.running_mean"], values.mean(1))
            close(result["after"][net][f"{convs}1.running_var"], values.var(1))
        return
    mean, var = ([h.transpose(0, 1).flatten(1) for h in hidden] for _ in range(2))
    mean = sum(len(h) * m.mean(1) for h, m in zip(hidden, mean, strict=True)) / 7
    var = sum(len(h) * v.var(1) for h, v in zip(hidden, var, strict=True)) / 7
    for result in results:
        close(result["after"][net][f"{convs}1.running_mean"], 0.1 * mean)
        close(result["after"][net][f"{convs}1.running_var"], 0.9 + 0.1 * var)


def test_attacks_move_to_the_worker_with_fewer_steps_and_return(two):
    _, ranks = two
    first, second = (result["attacks"] for result in ranks)
    assert first["steps"].sum() + second["steps"].sum() == 26 + 7
    assert (first["steps"].sum() - second["steps"].sum()).abs() <= 3  # 19 before
    for result in (first, second):
        batch, strategy = result["given"]
        assert torch.equal(result["x_adv"], batch.x + 10 * strategy.num_steps.view(-1, 1, 1, 1))
        assert torch.equal(result["x"][:, 0, 0, 0].long(), result["index"])  # pixels travel with their names
        assert torch.equal(result["eps"], result["index"] / 255)
        assert torch.equal(result["soft_y"], result["index"].double()[:, None] / torch.tensor([7.0, 9.0]))
    assert sorted([*first["index"].tolist(), *second["index"].tolist()]) == list(range(7))


def test_the_collectives(two):
    _, ranks = two
    for rank, result in enumerate(ranks):
        got = result["collectives"]
        assert got["total"].tolist() == [3.0, 30.0]
        assert got["kept"].tolist() == [rank + 1.0, 10.0 * (rank + 1)]
        assert got["mixed0"].tolist() == [[3.0, 3.0], [3.0, 3.0]]
        assert got["mixed1"].tolist() == [11] and got["mixed1"].dtype == torch.int64
        assert got["mixed2"].tolist() == [2.0, 2.0, 2.0] and got["mixed2"].dtype == torch.float64
        assert got["1.num_batches_tracked"] == 3
        assert (got["grad0"] == 1.0).all() and (got["grad1"] == 0.0).all()
    assert torch.equal(ranks[0]["collectives"]["0.weight"], ranks[1]["collectives"]["0.weight"])


def test_one_worker_needs_no_messages():
    group, tensor = ProcessGroup(), torch.ones(2)
    assert group.is_first and group.sum(tensor) is tensor
    group.sum_in_place([tensor])
    group.broadcast_from_first(torch.nn.Linear(1, 1))
    group.barrier()
    assert tensor.tolist() == [1.0, 1.0]


def test_gradients_stand_in_for_what_was_not_used():
    net = torch.nn.Linear(2, 2)
    net.bias.requires_grad_(False)
    (grad,) = gradients(net.parameters())
    assert grad is net.weight.grad and not grad.any() and net.bias.grad is None


class Part(ProcessGroup):
    """A worker that is never added up: its share of a count is what it returns."""

    def sum(self, tensor):
        return tensor


@pytest.mark.parametrize("num_steps", [0, 2])
def test_accuracy_does_not_depend_on_the_number_of_workers(num_steps):
    images = make_images(37)
    torch.manual_seed(0)
    net = build_classifier("small_cnn", num_classes=4, image_shape=(1, 8, 8))
    place = {"seed": 0, "device": CPU, "dtype": torch.float32}

    def measure(group, batch_size=16, images=images):
        settings = EvalConfig(eps=0.01, step_size=0.005, batch_size=batch_size)
        return accuracy(net, images, num_steps, settings, group=group, **place)

    whole = measure(ProcessGroup())
    assert 0.1 < whole < 0.6 and whole * 37 == pytest.approx(round(whole * 37))
    for size in (2, 3):
        parts = [measure(Part(rank, size)) for rank in range(size)]
        assert sum(parts) == pytest.approx(whole, abs=1e-12)
    assert measure(ProcessGroup(), batch_size=5) == whole
    one_image = Images(images.x[:1], images.y[:1])
    assert measure(Part(1, 2), images=one_image) == 0.0


def test_accuracy_under_attack_is_lower_and_leaves_the_net_alone():
    images = make_images(60)
    torch.manual_seed(0)
    net = build_classifier("small_cnn_bn", num_classes=4, image_shape=(1, 8, 8)).train()
    state = {name: value.clone() for name, value in net.state_dict().items()}
    settings = EvalConfig(eps=0.1, step_size=0.05, batch_size=60)
    place = {"seed": 0, "device": CPU, "dtype": torch.float32, "group": ProcessGroup()}
    clean, robust = (accuracy(net, images, steps, settings, **place) for steps in (0, 10))
    with torch.no_grad():
        by_hand = (net.eval()(images.x / 255).argmax(1) == images.y).float().mean()
    assert clean == pytest.approx(float(by_hand)) and robust < clean
    net.train()
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())


def test_a_cheaper_view_attacks_and_the_net_itself_is_asked():
    """Validation attacks the folded net, and the same images are fooled; another net fools fewer."""
    images = make_images(60)
    torch.manual_seed(0)
    net, other = (build_classifier("small_cnn_bn", num_classes=4, image_shape=(1, 8, 8)) for _ in range(2))
    settings = EvalConfig(eps=0.1, step_size=0.05, batch_size=25)
    place = {"seed": 0, "device": CPU, "dtype": torch.float64, "group": ProcessGroup()}
    net, other = net.double(), other.double()
    plain = accuracy(net, images, 5, settings, **place)
    clean = accuracy(net, images, 0, settings, **place)
    assert accuracy(net, images, 5, settings, view=AttackView(SpeedConfig()), **place) == plain < clean
    assert plain < accuracy(net, images, 5, settings, view=lambda net, x: other, **place)
