"""Whatever the reference pages show says what it is: docstrings, shapes of tensors, errors it raises."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs" / "reference").glob("*.md"))
NAMES = [name for page in PAGES for name in re.findall(r"^::: (\S+)$", page.read_text(), re.MULTILINE)]
SHAPE = re.compile(r"\[[^\[\]]*[A-Z][^\[\]]*\]|\[n\]|\(C, ?H, ?W\)|\b0-d\b|\bany shape\b")
"""[B,C,H,W], [sum V_k], [B, *shape]; not [0,1], which is a range."""
CODE = re.compile(r"(`+).*?\1", re.DOTALL)
HTML = re.compile(r"<[A-Za-z/!][^>]*>")
UNSAID = {"AssertionError"}  # our own bugs
MAKING = ("__init__", "__post_init__")
USAGE = {"unknown_name": "UsageError", "refusal": "UsageError"}  # what these functions make

Defined = ast.FunctionDef | ast.ClassDef | ast.Module


class Shown(NamedTuple):
    """One object of the page: its dotted name, its definition, and the class that it stands in."""

    name: str
    node: Defined
    owner: ast.ClassDef | None


def shown(name: str) -> Iterator[Shown]:
    """The object of a name on the page, and what is public inside it."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        place = ROOT.joinpath(*parts[:end])
        for file in (place.with_suffix(".py"), place / "__init__.py"):
            if file.is_file():
                module = ast.parse(file.read_text())
                if end == len(parts):
                    yield Shown(name, module, None)
                yield from inside(".".join(parts[:end]), module.body, parts[end:])
                return
    raise AssertionError(f"docs/reference names {name}, which is no file")


def inside(
    place: str, body: list[ast.stmt], wanted: list[str], owner: ast.ClassDef | None = None
) -> Iterator[Shown]:
    """Public definitions of a module or class; with ``wanted`` the one of that name alone."""
    found = [node for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    found = [node for node in found if not node.name.startswith("_")]
    if wanted:
        found = [node for node in found if node.name == wanted[0]]
        assert found, f"docs/reference names {place}.{'.'.join(wanted)}, which is not defined there"
    for node in found:
        if not wanted[1:]:
            yield Shown(f"{place}.{node.name}", node, owner)
        if isinstance(node, ast.ClassDef):
            yield from inside(f"{place}.{node.name}", node.body, wanted[1:], node)


def faults(item: Shown) -> Iterator[str]:
    """What the docstring of one object leaves out."""
    told = ast.get_docstring(item.node) or ""
    if not told:
        yield f"{item.name}: has no docstring"
    around = f"{told}\n{(item.owner and ast.get_docstring(item.owner)) or ''}"
    if takes_tensors(item.node) and not SHAPE.search(around):
        yield f"{item.name}: takes, gives or holds tensors and names no shape such as [B,C,H,W]"
    if lost := HTML.search(CODE.sub("", told)):
        yield f"{item.name}: the page takes {lost[0]} for HTML and shows nothing; put it between ``"
    for error in sorted(raised(item.node) - UNSAID):
        if error not in around:
            yield f"{item.name}: raises {error} and does not say so"


def takes_tensors(node: Defined) -> bool:
    """Whether a function's signature, or a class's fields or its making, speak of tensors."""
    spoken: list[ast.expr] = []
    if isinstance(node, ast.ClassDef):
        spoken += [part.annotation for part in node.body if isinstance(part, ast.AnnAssign)]
    for function in made_by(node):
        arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
        spoken += [given for argument in arguments if (given := argument.annotation)]
        spoken += [function.returns] if function.returns else []
    names = {part.id for annotation in spoken for part in ast.walk(annotation) if isinstance(part, ast.Name)}
    return "Tensor" in names


def made_by(node: Defined) -> list[ast.FunctionDef]:
    """What runs when the object is called: the function itself, or a class's own making."""
    if isinstance(node, ast.FunctionDef):
        return [node]
    functions = [part for part in node.body if isinstance(part, ast.FunctionDef)]
    return [part for part in functions if part.name in MAKING] if isinstance(node, ast.ClassDef) else []


def raised(node: Defined) -> set[str]:
    """Errors that a function, or the making of an object, raises itself, as a caller would catch them."""
    raises = [part.exc for own in made_by(node) for part in ast.walk(own) if isinstance(part, ast.Raise)]
    names = {ast.unparse(error.func) for error in raises if isinstance(error, ast.Call)}
    return {USAGE.get(name, name) for name in names}


@pytest.mark.parametrize("name", NAMES)
def test_docstrings_name_shapes_and_errors(name):
    assert not [fault for item in shown(name) for fault in faults(item)]


SAMPLE = '''
class Box:
    """Holds something."""
    x: Tensor
    def __init__(self): raise UserError("no")
    def grow(self, x: Tensor) -> Tensor:
        """Grown, in [0,1]."""
    def _own(self, x: Tensor): ...
def told(x: Tensor):
    """x [B,C,H,W]; UsageError where it is small."""
    raise unknown_name("x", x, [])
def silent(): ...
def product():
    """Gives <v, w>, which is ``<v, w>``."""
class Kept:
    """Remembers labels."""
    def __init__(self, y: Tensor): ...
'''


def test_a_missing_docstring_shape_or_error_is_found():
    found = [fault for item in inside("m", ast.parse(SAMPLE).body, []) for fault in faults(item)]
    assert [fault.partition(",")[0] for fault in found] == [
        "m.Box: takes",
        "m.Box: raises UserError and does not say so",
        "m.Box.grow: takes",
        "m.silent: has no docstring",
        "m.product: the page takes <v",
        "m.Kept: takes",
    ]


def test_every_plug_in_of_ours_stands_on_the_page():
    """A method, learner, attack or data source is looked up by the name of its file."""
    # outside: the boundary around a user's own, no plug-in itself.
    unseen = {
        "methods": {"clean", "schedules", "outside"},
        "attacks": {"balance", "graphed", "plan", "restarts"},
        "learners": {"outside"},
    }
    for folder, left_out in unseen.items():
        files = {file.stem for file in (ROOT / "lasat_ray" / folder).glob("[a-z]*.py")}
        assert files - left_out == named(folder)
    sources = (ROOT / "lasat_ray" / "data" / "sources.py").read_text()
    loaders = set(re.findall(r'^    "[^"]+": (\w+)\.load', sources, re.MULTILINE))
    assert len(loaders) > 5 and loaders <= named("data")


def named(folder: str) -> set[str]:
    """Modules of a package that the page shows."""
    return {name.split(".")[2] for name in NAMES if name.startswith(f"lasat_ray.{folder}.")}
