"""A trained net is a plain ``torch.nn.Module``: other people's attack libraries take it as it is."""

import pytest
import torch

from lasat_ray.runs.load import load_model
from tests.commands.test_evaluate import make_run
from tests.support.evaluation_nets import EPS
from tests.support.helpers import plain_pgd

foolbox = pytest.importorskip("foolbox", reason="foolbox comes with the test extra")


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """The net as a user gets it from a run folder."""
    return load_model(make_run(tmp_path_factory.mktemp("interop") / "run"))


def test_foolbox_attacks_a_trained_net(loaded, images):
    x, y = images.x[:20].float() / 255, images.y[:20]
    model = foolbox.PyTorchModel(loaded, bounds=(0, 1), device="cpu")
    assert foolbox.accuracy(model, x, y) == float((loaded(x).argmax(1) == y).float().mean())
    attack = foolbox.attacks.LinfPGD(rel_stepsize=0.25, steps=20, random_start=False)
    _, (x_adv,), (broken,) = attack(model, x, y, epsilons=[EPS])
    assert (x_adv - x).abs().max() <= EPS + 1e-6
    assert torch.equal(loaded(x_adv).argmax(1) != y, broken)
    assert broken.sum() > (loaded(x).argmax(1) != y).sum()
    # Both sides start at the clean image, so the libraries agree image by image.
    ours = torch.stack(
        [plain_pgd(loaded, x[n], y[n], torch.zeros_like(x[n]), EPS, EPS / 4, 20) for n in range(20)]
    )
    assert ((loaded(ours).argmax(1) != y) == broken).float().mean() >= 0.95
