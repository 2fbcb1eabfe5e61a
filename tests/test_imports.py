"""Imports go one way: a file imports lower-numbered rooms or its own; two rooms may import Ray."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("lasat_ray", "envs", "tuning")
ROOMS = {
    0: (
        "errors",
        "types",
        "units",
        "config",
        "config_loss",
        "config_numerics",
        "lock",
        "stopping",
        "watchdog",
        "world",
        "rng",
        "plugins",
        "trust",
        "recipes",
        "config_io",
        "validate",
        "validate_grid",
        "validate_method",
        "validate_learner",
    ),
    1: ("data", "models", "optim"),
    2: ("strategy", "checkpoint", "load"),
    3: ("attacks",),
    4: ("methods",),
    5: ("task", "target_step"),
    6: ("credit", "credit_check", "reward"),
    7: ("envs",),
    8: ("learners",),
    9: ("round",),
    10: (
        "cost",
        "evaluation",
        "numerics",
        "recorder",
        "events",
        "folder",
        "probe",
        "strategist",
        "reporting",
        "trackers",
        "display",
    ),
    11: ("loop", "outcome", "recovery"),
    12: ("cluster",),
    13: (
        "options",
        "commandline",
        "train",
        "evaluate",
        "leaderboard",
        "report",
        "explain",
        "export",
        "__main__",
    ),
    14: ("tuning",),
}
NUMBER = {name: number for number, names in ROOMS.items() for name in names}
MAY_IMPORT_RAY = ("cluster", "tuning")
OWN_NAME = "lasat_ray"  # the package itself: lasat_ray/__init__.py

FILES = sorted(path.relative_to(ROOT) for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def room_of(module: str) -> str:
    """``lasat_ray.models.resnet`` -> ``models``; ``envs.build`` -> ``envs``."""
    package, _, rest = module.partition(".")
    name = rest.partition(".")[0]
    return name if package == "lasat_ray" and name else package


def module_of(file: Path) -> str:
    parts = file.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.with_suffix(".py").exists() or path.is_dir()


def imported(tree: ast.AST, file: Path) -> list[str]:
    """Every module a piece of code imports, relative ones resolved."""
    found: list[str] = []
    package = file.parent.parts
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*base, *([node.module] if node.module else [])])
            inside = [f"{module}.{alias.name}" for alias in node.names]
            modules = [name for name in inside if module in PACKAGES and is_module(name)]
            found += modules or [module]
    return found


def faults(file: Path, source: str) -> list[str]:
    """What is wrong with the imports of one file, in sentences."""
    own = room_of(module_of(file))
    if own != OWN_NAME and own not in NUMBER:
        return [f"{file}: room '{own}' is unknown; add it to the table"]
    tree: ast.AST = ast.parse(source)
    if own == OWN_NAME:  # it may import anything inside a function
        functions = (ast.FunctionDef, ast.AsyncFunctionDef)
        tree = ast.Module([node for node in tree.body if not isinstance(node, functions)], [])
    told: list[str] = []
    for module in imported(tree, file):
        if module.partition(".")[0] == "ray" and own not in MAY_IMPORT_RAY:
            told.append(f"{file}: imports {module}; only {' and '.join(MAY_IMPORT_RAY)} may import ray")
        if module.partition(".")[0] not in PACKAGES:
            continue
        other = room_of(module)
        if other == OWN_NAME:
            continue
        if other not in NUMBER:
            told.append(f"{file}: imports {module}, whose room '{other}' is unknown; add it to the table")
        elif NUMBER[other] > NUMBER.get(own, 0):
            rule = f"{own} is room {NUMBER.get(own, 0)}, {other} is room {NUMBER[other]}"
            told.append(f"{file}: imports {module}; {rule}: imports go to lower rooms only")
    return told


@pytest.mark.parametrize("file", FILES, ids=str)
def test_imports_go_to_lower_rooms_only(file):
    assert not faults(file, (ROOT / file).read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("file", "source", "told"),
    [
        ("lasat_ray/models/a.py", "from lasat_ray.round import x", "models is room 1, round is room 9"),
        ("lasat_ray/models/a.py", "def f():\n    import lasat_ray.loop", "models is room 1, loop is room 11"),
        ("lasat_ray/models/a.py", "from ..methods.trades import x", "models is room 1, methods is room 4"),
        ("lasat_ray/reward.py", "from envs import build", "reward is room 6, envs is room 7"),
        ("lasat_ray/loop.py", "import ray.train", "imports ray.train; only cluster and tuning"),
        ("lasat_ray/loop.py", "from ray import train", "imports ray; only cluster and tuning"),
        ("lasat_ray/attic.py", "", "room 'attic' is unknown; add it to the table"),
        ("lasat_ray/loop.py", "import lasat_ray.attic", "room 'attic' is unknown; add it to the table"),
        ("lasat_ray/__init__.py", "from lasat_ray.loop import x", "imports go to lower rooms only"),
    ],
)
def test_the_check_finds_an_import_that_goes_up(file, source, told):
    assert any(told in sentence for sentence in faults(Path(file), source))


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("lasat_ray/__init__.py", "def f():\n    from lasat_ray.loop import x"),
        ("lasat_ray/cluster/a.py", "import ray\nfrom lasat_ray import loop"),
        ("lasat_ray/loop.py", "import raygun\nfrom lasat_ray import __version__"),
        ("lasat_ray/models/a.py", "from . import b\nfrom .c import d"),
    ],
)
def test_the_check_lets_downward_imports_pass(file, source):
    assert not faults(Path(file), source)
