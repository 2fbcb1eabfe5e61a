"""Whether two checkouts compute the same bits: four small runs each, and a hash of all that they learned.

python -m benchmarks.same_program RECORD.json --tree CHECKOUT writes the hashes of a checkout;
python -m benchmarks.same_program RECORD.json --tree OTHER --compare exits with 1 where they differ.
The same machine, thread count and versions are needed on both sides.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

RUNS = {
    "default": ("--num-workers", "0"),
    "batch-norm": (
        *("--num-workers", "0", "--epochs", "2", "--model", "resnet18-8", "--batch-size", "64"),
        *("--learner", "reinforce", "--credit", "image", "--strategy-model", "tiny_cnn_bn"),
    ),
    "influence": (
        *("--num-workers", "0", "--epochs", "3", "--model", "tiny_cnn_bn", "--learner", "a2c"),
        *("--credit", "influence", "-k", "1"),
    ),
    "ray": ("--num-workers", "2", "--epochs", "3", "--batch-size", "64"),
}
LEARNED = ("/target_", "/learner/net/", "/learner/value_head/", "/learner/optimizer/")
"""Nets and optimizers; bookkeeping beside them may change its form."""


def weights_hash(file: Path) -> str:
    """SHA-256 of the tensors of a checkpoint by name: bits, not the file's own layout."""
    digest = hashlib.sha256()
    for name, value in sorted(load_file(file).items()):
        if not name.startswith(LEARNED):
            continue
        digest.update(name.encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def run(tree: Path, name: str, folder: Path) -> dict[str, str]:
    """Play one of ``RUNS`` with the code of ``tree`` and hash the nets it leaves."""
    out = folder / name
    command = [sys.executable, "-m", "lasat_ray.train", "--out", str(out), *RUNS[name]]
    env = {**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    subprocess.run(command, cwd=tree, env=env, check=True, stdout=subprocess.DEVNULL)
    last = sorted((out / "checkpoints").glob("*.safetensors"))
    return {file.stem: weights_hash(file) for file in last}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("record", type=Path, help="JSON of the hashes")
    parser.add_argument("--tree", type=Path, default=Path.cwd(), help="checkout whose code runs")
    parser.add_argument("--compare", action="store_true", help="compare with RECORD instead of writing it")
    options = parser.parse_args()
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in RUNS:
            found[name] = run(options.tree.resolve(), name, Path(folder))
            print(name, json.dumps(found[name], indent=1), flush=True)
    if not options.compare:
        options.record.write_text(json.dumps(found, indent=1) + "\n")
        return 0
    before = json.loads(options.record.read_text())
    differ = [name for name in RUNS if before[name] != found[name]]
    print(f"differ: {', '.join(differ)}" if differ else "the same bits in every run")
    return 1 if differ else 0


if __name__ == "__main__":
    sys.exit(main())
