"""Imports go one way: a package imports those of lower levels, and no two files import each other."""

import ast
from pathlib import Path

import pytest

from benchmarks.tables.packages import LEVEL, MAY_IMPORT_RAY, PICTURE, picture

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "lasat_ray"
TABLE = "benchmarks/tables/packages.py"
DOORS = ("envs", "tuning")
"""What a clone has beside the package: they import it, nothing imports them."""
OWN_NAME = PACKAGE  # the package itself: lasat_ray/__init__.py

FILES = sorted(path.relative_to(ROOT) for path in (ROOT / PACKAGE).rglob("*.py"))


def entry_of(module: str) -> str:
    """``lasat_ray.models.resnet`` -> ``models``; ``lasat_ray`` and doors -> themselves."""
    package, _, rest = module.partition(".")
    name = rest.partition(".")[0]
    return name if package == PACKAGE and name else package


def module_of(file: Path) -> str:
    parts = file.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.with_suffix(".py").exists() or path.is_dir()


def imported(tree: ast.AST, file: Path) -> list[str]:
    """Every module a piece of code imports, relative ones resolved, those for type checkers included."""
    found: list[str] = []
    package = file.parent.parts
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*base, *([node.module] if node.module else [])])
            inside = [f"{module}.{alias.name}" for alias in node.names]
            ours = module.partition(".")[0] == PACKAGE
            modules = [name for name in inside if ours and is_module(name)]
            found += modules or [module]
    return found


def run_at_import(tree: ast.Module) -> ast.Module:
    """The code that runs when the module is imported: no functions, and no names for type checkers alone."""
    skipped = (ast.FunctionDef, ast.AsyncFunctionDef, ast.If)
    return ast.Module([node for node in tree.body if not isinstance(node, skipped)], [])


def faults(file: Path, source: str) -> list[str]:
    """What is wrong with the imports of one file, in sentences."""
    own, tree = entry_of(module_of(file)), ast.parse(source)
    if own != OWN_NAME and own not in LEVEL:
        return [f"{file}: entry '{own}' is unknown; add it to {TABLE}"]
    code = run_at_import(tree) if own == OWN_NAME else tree
    text: list[str] = []
    for module in imported(code, file):
        other = entry_of(module)
        if other == "ray" and own not in MAY_IMPORT_RAY:
            text.append(f"{file}: imports {module}; only {' and '.join(MAY_IMPORT_RAY)} may import ray")
        if other in DOORS:
            text.append(f"{file}: imports {module}, which is not installed; import it from {PACKAGE}")
        if module.partition(".")[0] != PACKAGE or other == OWN_NAME:
            continue
        if other not in LEVEL:
            text.append(f"{file}: imports {module}, whose entry '{other}' is unknown; add it to {TABLE}")
        elif own != other and LEVEL[other] >= LEVEL.get(own, 0):
            rule = f"{own} is level {LEVEL.get(own, 0)}, {other} is level {LEVEL[other]}"
            text.append(f"{file}: imports {module}; {rule}: imports go to lower levels only")
    return text


def circle(edges: dict[str, set[str]]) -> list[str]:
    """Modules that import each other in a ring, in order; empty where there are none."""
    state: dict[str, int] = {}

    def visit(name: str, path: list[str]) -> list[str]:
        if state.get(name) == 1:
            return path[path.index(name) :]
        if state.get(name) == 2:
            return []
        state[name] = 1
        for other in sorted(edges.get(name, ())):
            found = visit(other, [*path, name] if name not in path else path)
            if found:
                return found
        state[name] = 2
        return []

    for start in sorted(edges):
        found = visit(start, [])
        if found:
            return found
    return []


def test_no_two_files_import_each_other():
    """Also inside packages and for type checkers alone; a package's own ``__init__`` gathers its files."""
    edges = {}
    for file in FILES:
        name = module_of(file)
        found = imported(ast.parse((ROOT / file).read_text(encoding="utf-8")), file)
        edges[name] = {other for other in found if other.startswith(f"{PACKAGE}.") and other != name}
    assert not circle(edges)


def test_a_ring_is_found():
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c"]
    assert circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_the_table_names_what_there_is():
    entries = {entry_of(module_of(file)) for file in FILES} - {OWN_NAME}
    assert entries == set(LEVEL)
    assert len([path for path in (ROOT / PACKAGE).iterdir() if path.name != "__pycache__"]) <= 34


def test_the_picture_is_the_table():
    assert PICTURE.read_text() == picture(), "run python -m benchmarks.tables docs/packages.svg"


@pytest.mark.parametrize("file", FILES, ids=str)
def test_imports_go_to_lower_levels_only(file):
    assert not faults(file, (ROOT / file).read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("file", "source", "text"),
    [
        ("models/a.py", "from lasat_ray.training.round import x", "models is level 3, training is level 8"),
        ("models/a.py", "def f():\n    import lasat_ray.training", "models is level 3, training is level 8"),
        ("models/a.py", "from ..methods.trades import x", "models is level 3, methods is level 5"),
        ("update/reward.py", "from lasat_ray.env import build", "update is level 6, env is level 7"),
        ("models/a.py", "from lasat_ray.data import x", "models is level 3, data is level 3"),
        ("env/build.py", "import envs", "imports envs, which is not installed"),
        (
            "env/build.py",
            "def f():\n    from tuning.sweep_k import main",
            "imports tuning.sweep_k, which",
        ),
        ("training/loop.py", "import ray.train", "imports ray.train; only cluster and tune"),
        ("training/loop.py", "from ray import train", "imports ray; only cluster and tune"),
        ("attic.py", "", f"entry 'attic' is unknown; add it to {TABLE}"),
        ("training/loop.py", "import lasat_ray.attic", f"'attic' is unknown; add it to {TABLE}"),
        ("__init__.py", "from lasat_ray.training.loop import x", "imports go to lower levels only"),
    ],
)
def test_the_check_finds_an_import_that_goes_up(file, source, text):
    assert any(text in sentence for sentence in faults(Path(PACKAGE, file), source))


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("__init__.py", "def f():\n    from lasat_ray.training.loop import x"),
        ("cluster/a.py", "import ray\nfrom lasat_ray.training import loop"),
        ("training/loop.py", "import raygun\nfrom lasat_ray import __version__"),
        ("models/a.py", "from . import b\nfrom .c import d"),
    ],
)
def test_the_check_lets_downward_imports_pass(file, source):
    assert not faults(Path(PACKAGE, file), source)
