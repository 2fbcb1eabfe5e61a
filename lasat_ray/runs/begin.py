"""One command that starts a run, goes on with it, or finds it finished: what job systems repeat."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lasat_ray.config import TrainConfig
from lasat_ray.config.json_io import leaves
from lasat_ray.errors import UsageError, UserError
from lasat_ray.runs.folder import RunFolder
from lasat_ray.runs.same import first_difference, other_settings

_OF_A_RUN = ("metrics.jsonl", "summary.json", "probe.safetensors", "checkpoints/*.safetensors")
"""What is written only after config.json."""


def resume_or_start(path: Path, config: TrainConfig, **facts: Any) -> RunFolder:
    """The run in ``path``, begun now unless there is one; ``facts`` for its manifest.

    A folder without config.json is begun in, whatever else lies there: a start that was cut short left at
    most a manifest of ours. OtherSettings where the run there is another one; UserError where files of a run
    lie there whose config.json is gone, or a manifest.json of somebody else; InUse while another process
    begins or trains there.
    """
    folder = RunFolder(path)
    if not holds_run(path):
        folder.make()
        with folder.lock():
            if not holds_run(path):
                _check_half_start(path)
                folder.sweep()
                folder.describe(config, **facts)
    if changed := first_difference(dict(leaves(config)), dict(leaves(folder.config()))):
        raise other_settings(*changed, path)
    return folder


def holds_run(path: Path) -> bool:
    """Whether a start in this folder was brought to its end."""
    return (path / "config.json").is_file()


def _check_half_start(path: Path) -> None:
    found = next((file for name in _OF_A_RUN for file in sorted(path.glob(name))), None)
    if found is not None:
        raise UserError(
            f"{found}: is of a run whose config.json is gone; restore that, or choose another --out"
        )
    if (path / "manifest.json").exists() and "lasat_ray" not in RunFolder(path).read_json("manifest.json"):
        raise UsageError(f"--out: '{path / 'manifest.json'}' is no file of a run; choose another folder")
