"""A run folder: where everything about one run lies, under fixed names.

config.json, manifest.json, metrics.jsonl, checkpoints/{last,previous,best}.safetensors,
summary.json, and TensorBoard events in tensorboard/.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from lasat_ray import __version__
from lasat_ray.config import TrainConfig
from lasat_ray.config.json_io import config_from_json, config_to_json, read_json
from lasat_ray.errors import UsageError, UserError, not_made
from lasat_ray.runs.checkpoint import load_checkpoint, save_checkpoint, sync_folder, write_atomically
from lasat_ray.runs.lock import locked

_AGES = ("newest", "last", "previous")  # of checkpoints; newest only until it is renamed to last
_PACKAGES = ("torch", "torchvision", "ray", "gymnasium", "numpy", "safetensors", "pyautoattack")


_SUMMARY: dict[str, Any] = {
    "clean_acc": (int, float),
    "rounds": int,
    "n_test": int,
    "norm": str,
    "eps": (int, float),
    "img_per_second": (int, float),
}
"""What every summary holds; the figures of attacks depend on the settings."""


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Names of files, and the few ways they are written."""

    path: Path

    @classmethod
    def create(cls, path: Path, config: TrainConfig, **facts: Any) -> RunFolder:
        """A new folder with config and manifest; UsageError if something is already there."""
        if path.exists():
            raise UsageError(
                f"--out: '{path}' already exists; choose another, or continue it with --resume {path}"
            )
        folder = cls(path)
        folder.make()
        folder.describe(config, **facts)
        return folder

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """An existing run; UsageError if it is none."""
        if not (path / "config.json").is_file():
            raise UsageError(
                f"--resume: '{path}' holds no run (no config.json); name a folder that --out made"
            )
        return cls(path)

    def make(self) -> None:
        """The folders of a run, where they are not there; UsageError where they cannot be."""
        try:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            sync_folder(self.path.parent)
        except OSError as error:
            raise not_made(self.path, error) from error

    def describe(self, config: TrainConfig, **facts: Any) -> None:
        """Write manifest and config, in this order: with config.json the folder holds a run, before it at
        most a start that was cut short."""
        self.write_json("manifest.json", manifest(config, **facts))
        self.write_json("config.json", config_to_json(config))

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    def config(self) -> TrainConfig:
        return config_from_json(self.read_json("config.json"))

    def summary(self) -> dict[str, Any] | None:
        """The final figures, None while the run is not finished; UserError where the file has others."""
        if not (self.path / "summary.json").is_file():
            return None
        summary = self.read_json("summary.json")
        for name, kind in _SUMMARY.items():
            if not isinstance(summary.get(name), kind):
                raise UserError(
                    f"{self.path / 'summary.json'}: its {name} is {summary.get(name)!r}; remove the file and "
                    f"--resume {self.path}, which writes it anew"
                )
        return summary

    def write_json(self, name: str, content: dict[str, Any]) -> None:
        write_atomically(self.path / name, (json.dumps(content, indent=2) + "\n").encode())

    def read_json(self, name: str) -> dict[str, Any]:
        content = read_json(self.path / name)
        if not isinstance(content, dict):
            raise UserError(f"{self.path / name}: is no JSON object; restore it from the original run folder")
        return content

    def save_last(self, tree: dict[str, Any]) -> Path:
        """Keep the newest two; gives the newest one's place. The new one is whole on disk before an old one
        gives up its name: a full disk, a crash, or a damaged ``last`` never takes the only whole file."""
        save_checkpoint(self.checkpoints / f"{_AGES[0]}.safetensors", tree)
        return self._rename_newest()

    def _rename_newest(self) -> Path:
        newest, last, previous = (self.checkpoints / f"{name}.safetensors" for name in _AGES)
        if last.exists():
            os.replace(last, previous)
        os.replace(newest, last)
        sync_folder(self.checkpoints)
        return last

    def load_last(self) -> tuple[dict[str, Any] | None, list[str]]:
        """The newest whole checkpoint (None if there is none yet), and what was wrong with newer ones."""
        faults: list[str] = []
        for name in _AGES:
            path = self.checkpoints / f"{name}.safetensors"
            if path.exists():
                try:
                    return load_checkpoint(path), faults
                except UserError as error:
                    faults.append(str(error))
        if faults:
            raise UserError(f"{self.checkpoints}: no whole checkpoint is left; {faults[0]}")
        return None, faults

    def has_checkpoint(self) -> bool:
        """Whether there is anything to continue from, whole or not."""
        return any((self.checkpoints / f"{name}.safetensors").exists() for name in _AGES)

    def load_best(self) -> dict[str, Any]:
        """Net and model card of the best validation epoch; UserError if there is none."""
        return load_checkpoint(self.checkpoints / "best.safetensors")

    def lock(self, role: str = "run", *, patience_s: float = 0.0) -> AbstractContextManager[None]:
        """Be the only one in this ``role`` for the time of a block; InUse where another process is.

        ``run``: the command that trains; ``writer``: the Ray worker that writes for it. Two, since a
        command may die while its worker still has a moment to live."""
        return locked(self.path / f".{role}.lock", patience_s=patience_s)

    @property
    def stop_file(self) -> Path:
        """There while the workers on Ray are asked to save and end."""
        return self.path / ".stop"

    def sweep(self) -> None:
        """Bring in order what a process left behind that died while it wrote; the caller holds the lock.

        A checkpoint that is whole gets its name, else a run that was over by then would keep an older one as
        its last; what is half written is removed."""
        self.checkpoints.mkdir(exist_ok=True)
        written = ("config.json", "manifest.json", "metrics.jsonl", "summary.json", "probe.safetensors")
        ours = [f".{name}.*.tmp" for name in written]
        for path in [*self.checkpoints.glob(".*.tmp"), *(p for name in ours for p in self.path.glob(name))]:
            path.unlink(missing_ok=True)
        with suppress(UserError):  # none is left, or a damaged one: the next to be saved takes its place
            load_checkpoint(self.checkpoints / f"{_AGES[0]}.safetensors")
            self._rename_newest()


def fresh_path(config: TrainConfig) -> Path:
    """runs/RECIPE-METHOD-STRATEGY-sSEED-N with the first free N."""
    stem = f"{config.recipe}-{config.method}-{config.strategy}-s{config.seed}"
    n = 1
    while (path := Path("runs") / f"{stem}-{n}").exists():
        n += 1
    return path


def manifest(config: TrainConfig, **facts: Any) -> dict[str, Any]:
    """What one needs to trace a number: versions, commit, command, machine, seed."""
    return {
        "lasat_ray": __version__,
        "seed": config.seed,
        **provenance(),
        **facts,
    }


def provenance() -> dict[str, Any]:
    """Command, time, machine, versions and commit: what any file of figures has to carry."""
    return {
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "packages": {name: _version(name) for name in _PACKAGES},
        **_git_state(),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git_state() -> dict[str, Any]:
    """Commit and whether the tree differed from it; None outside a checkout."""

    def git(*args: str) -> str | None:
        command = ["git", "-C", str(Path(__file__).parents[1]), *args]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=10)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    commit, status = git("rev-parse", "HEAD"), git("status", "--porcelain")
    return {"commit": commit, "dirty": None if status is None else bool(status)}
