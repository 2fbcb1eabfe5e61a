"""The smallest fooling eps by bisection, against a net where it is known; and the command."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from lasat_ray.api.commands.explain import ExplainOptions, format_eps, smallest_eps
from lasat_ray.cluster.local import train_here
from lasat_ray.explain import main
from lasat_ray.runs.folder import RunFolder
from tests.support.helpers import small_config


class Threshold(nn.Module):
    """Class 1 where the mean pixel is above ``level``: PGD finds exactly |mean - level|."""

    def __init__(self, level):
        super().__init__()
        self.level = nn.Parameter(torch.tensor(level))

    def forward(self, x):
        above = 100 * (x.flatten(1).mean(1) - self.level)
        return torch.stack([-above, above], 1)


def options(**changes):
    return ExplainOptions(run="", images=(), **changes)


def test_bisection_finds_the_distance_to_the_boundary():
    x = torch.stack([torch.full((1, 4, 4), level) for level in (0.4, 0.55, 0.3)])
    eps, x_adv = smallest_eps(Threshold(0.5), x, torch.tensor([0, 1, 1]), options(resolution=1e-3))
    assert eps[:2].tolist() == pytest.approx([0.1, 0.05], abs=1.5e-3) and float(eps[2]) == 0
    assert (eps[:2] >= torch.tensor([0.1, 0.05]) - 1e-6).all()  # an upper bound, never less
    assert Threshold(0.5)(x_adv).argmax(1).tolist() == [1, 0, 0]
    assert ((x_adv - x).abs().amax((1, 2, 3)) <= eps + 1e-6).all()


def test_a_net_that_nothing_fools_is_said_to_be_one():
    eps, _ = smallest_eps(Threshold(5.0), torch.zeros(1, 1, 4, 4), torch.tensor([0]), options())
    assert torch.isinf(eps).all()
    assert [format_eps(v) for v in (0.0, 8 / 255, float("inf"))] == [
        "wrong already",
        "8.00/255 (0.0314)",
        "none up to 1",
    ]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    config = small_config(epochs=1)
    folder = RunFolder.create(tmp_path_factory.mktemp("explain") / "run", config)
    train_here(config, folder, device="cpu")
    return folder.path


def test_the_command_tells_and_draws(run, tmp_path, capsys):
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8) * 4).save(tmp_path / "mine.png")
    out = tmp_path / "picture.png"
    more = ["--out", str(out), "--num-steps", "3", "--restarts", "1", "--resolution", "0.05"]
    assert main([str(run), "0", str(tmp_path / "mine.png"), *more]) == 0
    told = capsys.readouterr().out
    assert "Strategy: eps" in told and "Strategy: num_steps" in told and "upper bound" in told
    assert out.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["{run}"], "RUN and IMAGE are missing"),
        (["{run}", "359"], "359 is not in the test set; give 0 to 358"),
        (["{run}", "absent.png"], "'absent.png' is no file"),
        (["{run}", "{run}/config.json"], "is no image that can be read"),
        (["{run}", "0", "--restarts", "0"], "--restarts: 0 is out of range"),
        (["{run}", "0", "--resolution", "2"], "--resolution: 2 is out of range"),
    ],
)
def test_a_bad_call_is_one_line(arguments, told, run, capsys):
    assert main([word.format(run=run) for word in arguments]) in (1, 2)
    assert told in capsys.readouterr().err
