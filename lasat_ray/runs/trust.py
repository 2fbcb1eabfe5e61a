"""What a folder from somebody else may not do without --trust: name code that is run, have a server asked,
lead writing elsewhere by links, or make reading wait for ever."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection
from pathlib import Path

from lasat_ray.config import TrainConfig
from lasat_ray.config.json_io import flag, leaves
from lasat_ray.config.urls import is_url
from lasat_ray.errors import UsageError, UserError

_OURS = ("torchvision:", "timm:", "sb3:", "given:")
_CODE_FIELDS = ("method", "model", "strategy_model", "learner", "teacher_model")


def names_code(spelling: str) -> bool:
    """True if using this name imports code outside the project, torchvision, timm and Stable-Baselines3; a
    net that was given as an object is looked up, never imported."""
    return ":" in spelling and not spelling.startswith(_OURS)


def of_a_run(file: str | Path | None) -> str | None:
    """A file of settings that lies in a run folder, which may be somebody else's; None for one's own."""
    return str(file) if file is not None and (Path(file).parent / "manifest.json").exists() else None


def check_code(config: TrainConfig, source: str, trust: bool, named: Collection[str] = ()) -> None:
    """UsageError where a config that came with a folder names code or an address, unless it is trusted.

    ``named``: options that the user gave on the command line themselves, which is trust enough.
    """
    for field in _CODE_FIELDS:
        spelling, option = getattr(config, field), "--" + field.replace("_", "-")
        if spelling is not None and names_code(spelling) and not trust and option not in named:
            raise UsageError(
                f"{source}: its {option} is code, '{spelling}'; if you trust it, add --trust, "
                f"or name it yourself with {option}"
            )
    for path, value in leaves(config):
        if flag(path) not in named:
            check_address(flag(path), value, source, trust)


def check_address(option: str, value: object, source: object, trust: bool) -> None:
    """UsageError where a setting that came with a folder holds a URL, unless it is trusted: opening it
    tells a server of this machine, and takes what that server sends."""
    values = value if isinstance(value, tuple) else (value,)
    if not trust and (urls := [text for text in values if is_url(text)]):
        raise UsageError(
            f"{source}: its {option} is an address, '{urls[0]}'; if you trust it, add --trust, "
            f"or name it yourself with {option}"
        )


def check_folder(folder: Path, trust: bool) -> None:
    """UserError for anything in a run folder that is neither a file nor a folder of its own.

    A link would lead what is written into the folder to another place, a pipe would keep a reader
    waiting, a device would feed it for ever. With ``trust`` links are followed as usual.
    """
    if folder.is_dir() and not trust:
        for place, folders, files in os.walk(folder, followlinks=False):
            for name in (*folders, *files):
                _check_plain(Path(place) / name, folder)


def _check_plain(path: Path, folder: Path) -> None:
    mode = path.lstat().st_mode
    if stat.S_ISLNK(mode):
        if not path.resolve().is_relative_to(folder.resolve()):
            raise UserError(
                f"{path}: is a link that leads out of the run folder; if you trust it, add --trust, "
                "or put there what it leads to"
            )
    elif not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
        raise UserError(f"{path}: is neither a file nor a folder; remove it from the run folder")
