"""An installed wheel: ``lasat_ray`` alone, in the project of somebody who has names of ours for theirs.

The wheel is unpacked into an empty folder, from which a project imports that has an ``envs/``, a
``tuning.py``, a ``tests/`` and a ``benchmarks/`` of its own, each of which fails when imported. An editable
installation in this environment would fill what the wheel lacks from the clone: it is switched off.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NOT_SOURCE = {".git", ".venv", "build", "dist", "runs", "site"}
THEIRS = ("envs/__init__.py", "tuning.py", "tests/__init__.py", "benchmarks/__init__.py")
WITHOUT_CLONE = """
import sys

sys.meta_path[:] = [finder for finder in sys.meta_path if "editable" not in getattr(finder, "__module__", "")]
"""
"""A ``sitecustomize.py``, which Python imports after the environment's ``.pth`` files."""
NET = """
import math
import os
from pathlib import Path

import lasat_ray
from torch import nn

file = Path(lasat_ray.__file__)
assert file.is_relative_to(os.environ["INSTALLED"]), f"{file} is not the wheel's"


def linear(num_classes, image_shape):
    return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(image_shape), num_classes))
"""
TINY = (
    *("--model", "our_net:linear", "--strategy-model", "our_net:linear"),
    *("--epochs", "1", "--batch-size", "48"),
    *("--data.max-train", "160", "--data.max-test", "30", "--attack.grid", "eps=0.1,0.2 num_steps=1..2"),
    *("--reward.ref-num-steps", "1", "--evaluation.val-num-steps", "1", "--evaluation.test-num-steps", "1"),
)
GYMNASIUM = """
import gymnasium, lasat_ray, os
from pathlib import Path

assert Path(lasat_ray.__file__).is_relative_to(os.environ["INSTALLED"])
env = gymnasium.make("lasat_ray:lasat/AttackStrategy-v0")
env.reset(seed=0)
print(len(env.step(env.action_space.sample())))
"""
LOADS = """
import sys, lasat_ray

net = lasat_ray.load_model(sys.argv[1], trust=True)
print(sum(p.numel() for p in net.parameters()))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, since setuptools leaves folders beside what it builds."""
    source, out = tmp_path_factory.mktemp("source") / "lasat-ray", tmp_path_factory.mktemp("wheel")
    root = str(ROOT)
    shutil.copytree(ROOT, source, ignore=lambda folder, _: NOT_SOURCE if folder == root else {"__pycache__"})
    command = [sys.executable, "-m", "pip", "wheel", str(source), "--no-deps", "--wheel-dir", str(out)]
    if importlib.util.find_spec("setuptools") is not None:
        command.append("--no-build-isolation")  # else pip fetches setuptools
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (file,) = out.glob("*.whl")
    return file


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("installed")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    (folder / "sitecustomize.py").write_text(WITHOUT_CLONE)
    return folder


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    for name in THEIRS:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(f"raise RuntimeError('{name} of the project was imported')\n")
    (folder / "our_net.py").write_text(NET)
    return folder


def run(project: Path, installed: Path, *words: str) -> str:
    """A Python process in the project, whose only other place to import from is the wheel; its output."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    env = {**kept, "PYTHONPATH": str(installed), "INSTALLED": str(installed), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *words], cwd=project, env=env, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(words)}\n{done.stderr[-3000:]}"
    return done.stdout


def test_the_wheel_holds_the_package_alone(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.partition("/")[0] for name in names} == {"lasat_ray", "lasat_ray-0.1.0.dist-info"}
    there = {str(path.relative_to(ROOT)) for path in (ROOT / "lasat_ray").rglob("*.py")}
    assert there <= set(names) and "lasat_ray/py.typed" in names
    assert [name for name in names if name.startswith("lasat_ray/reporting/assets/")]


def test_what_the_wheel_lacks_is_not_taken_from_the_clone(project: Path, installed: Path) -> None:
    code = "import importlib.util as u; print([u.find_spec(n) for n in ('lasat_ray.rng', 'examples')])"
    absent = installed / "lasat_ray" / "rng.py"
    absent.rename(absent.with_suffix(".gone"))
    try:
        assert run(project, installed, "-c", code) == "[None, None]\n"
    finally:
        absent.with_suffix(".gone").rename(absent)


def test_git_ignores_no_folder_of_the_source() -> None:
    """A pattern meant for a clone's ``runs/`` would keep new files of ``lasat_ray/runs`` out of commits."""
    if not (ROOT / ".git").exists():
        pytest.skip("no clone")
    folders = {path.parent for part in ("lasat_ray", "tests") for path in (ROOT / part).rglob("*.py")}
    names = [str(folder / "new.py") for folder in sorted(folders)]
    done = subprocess.run(["git", "check-ignore", *names], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == ""


def test_a_project_trains_with_it_and_loads_the_run(project: Path, installed: Path) -> None:
    run(project, installed, "-m", "lasat_ray.train", *TINY, "--num-workers", "0", "--out", "trained")
    assert json.loads((project / "trained" / "summary.json").read_text())["rounds"] == 2
    assert run(project, installed, "-c", LOADS, "trained") == "650\n"  # 64 pixels and a bias, ten classes


def test_gymnasium_finds_the_environment_in_it(project: Path, installed: Path) -> None:
    assert run(project, installed, "-c", GYMNASIUM) == "5\n"


@pytest.mark.ray
def test_a_project_sweeps_with_it(project: Path, installed: Path) -> None:
    run(project, installed, "-m", "lasat_ray.tune.sweep_k", *TINY, "--ks", "2", "--out", "swept")
    record = json.loads((project / "swept" / "results.json").read_text())
    assert {trial["row"]: trial["status"] for trial in record["trials"]} == {
        "PGD-AT": "finished",
        "k=2": "finished",
    }
