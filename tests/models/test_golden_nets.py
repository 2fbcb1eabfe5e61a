"""The stored tiny nets load, and compute the formula that the golden vectors' description gives."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from tests.support.golden_nets import load_tiny

GOLDEN = Path(__file__).parent.parent / "golden"


@pytest.mark.parametrize(("case", "prefix"), [("fat", "net."), ("las_reward", "net."), ("awp_at", "w0.")])
def test_tiny_net_computes_the_documented_formula(case, prefix):
    npz = np.load(GOLDEN / f"{case}.npz")
    net = load_tiny(npz, prefix)
    x = torch.tensor(npz["x"])
    w = {name: torch.tensor(npz[prefix + name]) for name in net.state_dict()}
    out = F.conv2d(x, w["conv.weight"], w["conv.bias"], padding=1)
    assert ("norm.weight" in w) == (prefix == "w0.")
    if "norm.weight" in w:
        var, mean = torch.var_mean(out, (1, 2, 3), keepdim=True, correction=0)
        out = (out - mean) / (var + 1e-5).sqrt()
        out = out * w["norm.weight"].view(1, -1, 1, 1) + w["norm.bias"].view(1, -1, 1, 1)
    out = out.clamp(min=0).mean((2, 3)) @ w["fc.weight"].T + w["fc.bias"]
    assert net(x).dtype == torch.float64
    torch.testing.assert_close(net(x), out, rtol=0, atol=1e-13)
