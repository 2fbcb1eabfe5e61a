"""Settings in a file of one's own, YAML, TOML or JSON: any of them, by group or dotted name, over a recipe.

The config.json of any run is such a file. YAML is read by its version 1.2: 1e-3 is a number, ``no`` a word.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from lasat_ray.config import TrainConfig
from lasat_ray.config.changes import changed, flattened, settings
from lasat_ray.config.files import check_regular
from lasat_ray.config.hints import spec_of
from lasat_ray.config.json_io import MAX_JSON_BYTES, config_to_json, leaves, with_old_meaning
from lasat_ray.errors import UsageError, UserError

FORMATS = ("yaml", "toml", "json")
SUFFIXES = {".yaml": "yaml", ".yml": "yaml", ".toml": "toml", ".json": "json"}
_GROUPS = ("data", "attack", "loss", "reward", "policy", "optim", "evaluation")
"""What the config.json of every run has, of whatever version."""


def read_settings(path: Path) -> dict[str, Any]:
    """The content of a file of settings; UsageError or UserError naming the file where it is none."""
    if path.suffix not in SUFFIXES:
        raise UsageError(f"--config: '{path}' ends in none of {', '.join(SUFFIXES)}; rename it")
    check_regular(path)
    try:
        with open(path, "rb") as file:
            text = file.read(MAX_JSON_BYTES + 1)
        if len(text) > MAX_JSON_BYTES:
            raise UserError(f"{path}: has more than {MAX_JSON_BYTES:,} bytes; name a file of settings")
        content = _READERS[SUFFIXES[path.suffix]](text.decode())
    except OSError as error:
        raise UsageError(f"--config: '{path}' cannot be read ({error.strerror}); check the path") from error
    except UserError:
        raise
    except Exception as error:  # of the three parsers, and of bytes that are no text
        told = " ".join(str(error).split())
        raise UserError(f"{path}: is no {SUFFIXES[path.suffix].upper()} ({told}); correct it") from error
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise UserError(f"{path}: holds no settings by name; write for example epochs: 30")
    return with_old_meaning(content) if set(_GROUPS) <= content.keys() else content


def config_of_file(
    path: Path,
    recipe: str | None,
    find: Callable[[str | None], TrainConfig],
    options: Collection[str] = (),
) -> tuple[TrainConfig, set[str]]:
    """The config of a file over its recipe, and the dotted names of the settings that it gives.

    ``recipe``: named beside the file; ``find``: a recipe's config by its name, for None that of who names
    none; ``options``: names that are the command's. UsageError naming the file for an unknown name, with the
    nearest, for a value of another type, and for two recipes.
    """
    content = read_settings(path)
    if astray := [name for name in content if name in options]:
        told = "is an option of the command, not a setting; give it there"
        raise UsageError(f"{path}: {astray[0]}: {told}")
    own = content.get("recipe")
    if own is not None and not isinstance(own, str):
        raise UsageError(f"{path}: recipe: {own!r} is not accepted; give a name")
    if recipe is not None and own not in (None, recipe):
        raise UsageError(f"--recipe: '{recipe}' stands beside recipe '{own}' of {path}; leave one out")
    base = find(own or recipe)
    config = changed(base, content, source=str(path))
    return config, {name for name, _ in flattened(content, str(path))}


def spell_settings(config: TrainConfig, kind: str) -> str:
    """Every setting as the text of a file of this format, budgets and grids as the field writes them; reads
    back to the same config."""
    if kind == "json":
        return json.dumps(config_to_json(config), indent=2, allow_nan=False)
    if kind == "toml":
        return _toml(_spelled(config))
    import yaml  # late: three formats in four need none

    return yaml.safe_dump(_spelled(config), sort_keys=False, allow_unicode=True).rstrip()


def _spelled(config: TrainConfig) -> dict[str, Any]:
    """Groups in dicts, at the end; budgets and grids as text."""
    hints, plain, groups = settings(), {}, {}  # type: ignore[var-annotated]
    for path, value in leaves(config):
        spec = spec_of(hints[path])
        if spec is not None and value is not None:
            (value,) = spec.str_from_instance(value)
        elif isinstance(value, tuple):
            value = list(value)
        group, _, name = path.rpartition(".")
        (groups.setdefault(group, {}) if group else plain)[name] = value
    return {**plain, **groups}


def _toml(tree: Mapping[str, Any]) -> str:
    lines = []
    for name, value in tree.items():
        if isinstance(value, Mapping):
            lines += ["", f"[{name}]", *(f"{key} = {_toml_value(inner)}" for key, inner in value.items())]
        else:
            lines.append(f"{name} = {_toml_value(value)}")
    return "\n".join(lines)


def _toml_value(value: Any) -> str:
    """TOML has no null: settings read the word none as such."""
    if isinstance(value, list):
        return f"[{', '.join(map(_toml_value, value))}]"
    return json.dumps("none" if value is None else value, ensure_ascii=False)


def _read_json(text: str) -> Any:
    def once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"'{name}' stands twice")
        return dict(pairs)

    return json.loads(text, object_pairs_hook=once)


def _read_yaml(text: str) -> Any:
    import yaml

    class Loader(yaml.SafeLoader):
        """Names that stand twice are refused, plain words are read as YAML 1.2 has them."""

        yaml_implicit_resolvers: dict[str, list[Any]] = {}  # noqa: RUF012 - PyYAML's own way

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            names = [self.construct_object(key) for key, _ in node.value]
            for name in names:
                if names.count(name) > 1:
                    raise ValueError(f"'{name}' stands twice, line {node.start_mark.line + 1} and below")
            return super().construct_mapping(node, deep)

    words = {
        "bool": (r"true|True|TRUE|false|False|FALSE", "tTfF"),
        "null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
        "int": (r"[-+]?[0-9]+", "-+0123456789"),
        "float": (r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", "-+.0123456789"),
    }
    for tag, (pattern, first) in words.items():
        expression = re.compile(rf"^(?:{pattern})$")
        Loader.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", expression, list(first))
    return yaml.load(text, Loader)


_READERS: dict[str, Callable[[str], Any]] = {"json": _read_json, "toml": tomllib.loads, "yaml": _read_yaml}
