"""Stable-Baselines3 and RLlib train on the environment as it is; each example runs."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
RLLIB = ("tree", "lz4", "ormsgpack")


def run(*command: str) -> str:
    done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.skipif(importlib.util.find_spec("stable_baselines3") is None, reason="needs the extra sb3")
@pytest.mark.parametrize("algorithm", ["PPO", "A2C"])
def test_stable_baselines3(algorithm):
    told = run("examples/sb3_on_our_env.py", "--algorithm", algorithm, "--steps", "64")
    found = re.search(r"steps (\d+), eps (0\.\d+), reward -?\d", told)
    assert found and int(found[1]) == 64 and 0.05 <= float(found[2]) <= 0.3


def test_ppo_in_one_file_as_cleanrl_writes_it():
    told = run("-m", "examples.cleanrl_ppo_on_our_env", "--updates", "2", "--num-envs", "8")
    assert re.search(r"updates 2, mean return -?\d", told)


@pytest.mark.skipif(importlib.util.find_spec("torchrl") is None, reason="needs torchrl")
def test_torchrl():
    told = run("-m", "examples.torchrl_on_our_env", "--updates", "2", "--steps", "4")
    assert re.search(r"steps 8, mean reward -?\d", told)


@pytest.mark.skipif(importlib.util.find_spec("skrl") is None, reason="needs skrl")
def test_skrl():
    told = run("-m", "examples.skrl_on_our_env", "--steps", "8", "--num-envs", "8")
    assert re.search(r"images 64, mean reward -?\d", told)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.skipif(any(importlib.util.find_spec(m) is None for m in RLLIB), reason="needs the extra rllib")
def test_rllib():
    told = run("examples/rllib_on_our_env.py", "--steps", "64")
    assert re.search(r"steps 64, mean reward -?\d", told)
