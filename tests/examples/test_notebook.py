"""examples/quickstart.ipynb runs from top to bottom, as a kernel runs it, and shows what it promises."""

from __future__ import annotations

import ast
import json
import time
from pathlib import Path

import matplotlib as mpl
import pytest

NOTEBOOK = Path(__file__).parents[2] / "examples" / "quickstart.ipynb"


def run_cell(source: str, names: dict[str, object]) -> object:
    """What a kernel does with a cell: all statements run, and the value of a last expression is shown."""
    body = ast.parse(source).body
    last = body.pop() if isinstance(body[-1], ast.Expr) else None
    exec(compile(ast.Module(body, []), str(NOTEBOOK), "exec"), names)
    if last is None:
        return None
    return eval(compile(ast.Expression(last.value), str(NOTEBOOK), "eval"), names)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_notebook_runs_and_shows_tables_and_pictures(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    mpl.use("agg")
    drawn: list[object] = []
    import matplotlib.pyplot as plt

    monkeypatch.setattr(plt, "show", lambda: drawn.append(plt.gcf()))
    monkeypatch.setattr("tempfile.mkdtemp", lambda: str(tmp_path / "folder"))
    names: dict[str, object] = {"__name__": "__main__"}
    began, shown = time.process_time(), []
    for cell in json.loads(NOTEBOOK.read_text())["cells"]:
        if cell["cell_type"] == "code":
            value = run_cell("".join(cell["source"]), names)
            shown += [] if value is None else [value._repr_html_()]
    spent = time.process_time() - began
    assert [page.count("<table") for page in shown] == [1, 1, 1, 1]
    compute, attacked = drawn
    assert len(compute.axes[0].lines) == 2 and len(attacked.axes) == 16
    spread = abs(names["x_adv"] - names["some_x"]).max()
    assert 0.1 < spread <= 0.2 + 1e-6
    one, other = names["learned"].summary, names["fixed"].summary
    assert other["passes_per_image"] == pytest.approx(one["passes_per_image"], rel=0.1)
    assert other["rounds"] < one["rounds"] and one["clean_acc"] > 0.8
    assert spent < 120, f"the notebook took {spent:.0f} s of processor time; its first cell promises a minute"


def test_the_notebook_uses_the_public_api_alone_and_no_path_of_this_machine():
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    imported = {
        node.module if isinstance(node, ast.ImportFrom) else name.name
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in node.names
    }
    assert {name for name in imported if name.startswith("lasat_ray")} == {"lasat_ray"}
    assert "/tmp" not in NOTEBOOK.read_text() and "/home" not in NOTEBOOK.read_text()
