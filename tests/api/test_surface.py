"""The names of the API: complete in dir() and help(), light to import, not displaced by commands."""

from __future__ import annotations

import ast
import importlib
import inspect
import pydoc
import subprocess
import sys
from pathlib import Path

import pytest

import lasat_ray
from lasat_ray import API

ROOT = Path(__file__).parents[2]
COMMANDS = ("train", "evaluate", "report", "explain", "predict")


def test_every_name_stands_in_dir_and_help():
    assert set(lasat_ray.__all__) <= set(dir(lasat_ray))
    text = pydoc.plaintext.document(lasat_ray)
    for name in API:
        function = getattr(lasat_ray, name)
        assert inspect.getdoc(function) and f"    {name}(" in text
        assert "one line" in (inspect.getdoc(function) or ""), f"{name} does not say how it fails"


def test_type_checkers_see_what_there_is():
    tree = ast.parse(Path(lasat_ray.__file__).read_text())
    (block,) = (
        node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    )
    named = {alias.name: node.module for node in block.body for alias in node.names}
    assert {name: named[name] for name in API} == lasat_ray.API
    assert set(named) == {*API, *lasat_ray.ERRORS}
    assert set(lasat_ray.__all__) == {*named, "ENV_ID", "__version__"}


def test_importing_the_package_and_naming_its_version_loads_neither_torch_nor_numpy():
    code = (
        "import sys, lasat_ray; dir(lasat_ray), lasat_ray.__version__, lasat_ray.UserError; "
        "print(*({'torch', 'numpy', 'ray', 'tyro'} & sys.modules.keys()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == ""


@pytest.mark.parametrize("name", COMMANDS)
def test_importing_a_command_leaves_the_function_in_its_place(name):
    module = importlib.import_module(f"lasat_ray.{name}")
    function = getattr(lasat_ray, name)
    assert inspect.isfunction(function) and function.__name__ == name
    assert inspect.ismodule(module) and callable(module.main) and callable(function.main)  # type: ignore[attr-defined]


def test_a_name_can_be_replaced_and_put_back(monkeypatch):
    before = lasat_ray.recipe
    with monkeypatch.context() as patch:
        patch.setattr(lasat_ray, "recipe", len)
        assert lasat_ray.recipe is len
    assert lasat_ray.recipe is before


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        lasat_ray.trian  # noqa: B018


def test_every_argument_is_in_its_docstring():
    left_to_the_command = {"restarts", "worst_case", "all_steps", "sanity_examples", "seed", "chunk_size"}
    left_to_the_command |= {"which", "trust", "save_images", "num_workers", "device", "progress", "title"}
    unsaid = [
        f"{name}: {argument}"
        for name in API
        for argument in inspect.signature(getattr(lasat_ray, name)).parameters
        if f"``{argument}``" not in (inspect.getdoc(getattr(lasat_ray, name)) or "")
    ]
    assert not [told for told in unsaid if told.partition(": ")[2] not in left_to_the_command]
