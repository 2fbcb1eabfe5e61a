"""BatchNorm over workers is BatchNorm over the batch: values, gradients and second derivatives in float64,
with uneven shares and workers without an image."""

import os

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from torch import nn

from lasat_ray.data.classes import Classes, number_names
from lasat_ray.env.nets import build_target_net
from lasat_ray.errors import UsageError
from lasat_ray.models.synced import SyncedBatchNorm
from lasat_ray.process_group import ProcessGroup
from tests.support.helpers import small_config

F64 = torch.float64
SHARES = {1: (7,), 2: (3, 4), 4: (0, 3, 1, 3)}


def a_net():
    torch.manual_seed(0)
    layers = [nn.Conv2d(2, 5, 3), nn.BatchNorm2d(5), nn.Tanh(), nn.Flatten(), nn.Linear(80, 6)]
    net = nn.Sequential(*layers, nn.BatchNorm1d(6, momentum=None), nn.BatchNorm1d(6, affine=False)).double()
    with torch.no_grad():
        net[1].weight.uniform_(0.5, 2)
        net[1].bias.normal_()
    return net


def batch():
    g = torch.Generator().manual_seed(1)
    return 3 + torch.randn(7, 2, 6, 6, generator=g, dtype=F64), torch.arange(7) % 6


def passes(net, x, y, group):
    """Two passes in train mode, the gradient of each, and that of a gradient's size: all that a worker has
    to sum is summed."""
    x = x.clone().requires_grad_(True)
    loss = F.cross_entropy(net(x), y, reduction="sum") + (net(x**2) ** 3).sum()
    weights = list(net.parameters())
    first = torch.autograd.grad(loss, [x, *weights], create_graph=True)
    size = (first[0] ** 2).sum()
    second = torch.autograd.grad(size, [x, *weights])
    told = {"loss": group.sum(loss), "x": first[0].detach(), "xx": second[0]}
    told["weights"], told["again"] = ([group.sum(value) for value in part[1:]] for part in (first, second))
    return told | {"state": {name: value.clone() for name, value in net.state_dict().items()}}


def work(rank, size, path):
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group("gloo", init_method=f"file://{path}/meet", rank=rank, world_size=size)
    x, y = batch()
    first = sum(SHARES[size][:rank])
    mine = slice(first, first + SHARES[size][rank])
    group = ProcessGroup(rank, size)
    with SyncedBatchNorm(group):
        found = passes(a_net(), x[mine], y[mine], group)
    torch.save(found, path / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.parametrize("size", sorted(SHARES))
def test_any_shares_of_a_batch_are_normalized_as_the_batch(size, tmp_path):
    x, y = batch()
    alone = passes(a_net(), x, y, ProcessGroup())
    mp.spawn(work, args=(size, tmp_path), nprocs=size)
    ranks = [torch.load(tmp_path / f"{rank}.pt") for rank in range(size)]
    for name in ("x", "xx"):
        torch.testing.assert_close(torch.cat([r[name] for r in ranks]), alone[name], rtol=0, atol=1e-10)
    for found in ranks:
        torch.testing.assert_close(found["weights"], alone["weights"], rtol=1e-10, atol=1e-10)
        if 0 not in SHARES[size]:  # PyTorch's convolution has none of no image
            torch.testing.assert_close(found["again"], alone["again"], rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(found["state"], alone["state"], rtol=0, atol=1e-10)
        torch.testing.assert_close(found["loss"], alone["loss"], rtol=0, atol=1e-10)
    assert alone["x"].abs().min() > 0 and alone["xx"].abs().max() > 1e-3


def test_it_is_the_library_s_function_outside_of_training():
    net, (x, _) = a_net(), batch()
    with SyncedBatchNorm(ProcessGroup()):
        net(x)
        own = a_net()
        own.load_state_dict(net.state_dict())
        assert torch.equal(net.eval()(x), own.eval()(x))
        halves = net.train().bfloat16()(x.bfloat16())
    assert halves.dtype == torch.bfloat16


def test_a_net_without_batch_norm_has_nothing_to_synchronize():
    config = small_config(model="small_cnn", optim__sync_batch_norm=True)
    told = r"--optim.sync-batch-norm: True has nothing to do for --model small_cnn, which has no BatchNorm;"
    with pytest.raises(UsageError, match=told):
        build_target_net(config, Classes(number_names(4)), (1, 8, 8), num_workers=2)
    config = small_config(model="small_cnn_bn", optim__sync_batch_norm=True)
    build_target_net(
        config, Classes(number_names(4)), (1, 8, 8), num_workers=config.batch_size
    )  # a share of one image is enough
