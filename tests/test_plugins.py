"""Code from outside that raises anything at all is told by its name, in one line."""

import signal
import sys

import pytest

from lasat_ray.cli.command import run_command
from lasat_ray.errors import UserError, described
from lasat_ray.errors.interrupts import ended_by_signals
from lasat_ray.models.outside import outside_builder
from lasat_ray.plugins import Plugin, load_plugin
from tests.support.odd_errors import KINDS, ODD, Unspeakable


@pytest.fixture
def as_a_command():
    """Where the tests run in a shell's background, SIGINT is ignored before they start."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with ended_by_signals():
        yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("fault", ODD)
@pytest.mark.usefixtures("as_a_command")
def test_a_call_that_raises_anything_is_named(fault):
    with pytest.raises(UserError) as caught, Plugin("--model", "mine:Net").call("forward"):
        raise ODD[fault]()
    told = str(caught.value)
    assert told.startswith(f"--model: 'mine:Net' forward raised {KINDS[fault]}") and len(told) < 500
    assert told.endswith("; correct that code") and told.isprintable()


@pytest.mark.parametrize("fault", ODD)
@pytest.mark.usefixtures("as_a_command")
def test_a_file_that_raises_anything_when_imported_is_named(fault, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    name = "odd_" + fault.replace("-", "_")
    (tmp_path / f"{name}.py").write_text(
        f"from tests.support.odd_errors import ODD\nraise ODD[{fault!r}]()\n"
    )
    for load in (
        lambda: load_plugin("learner", f"{name}:Thing"),
        lambda: outside_builder(f"{name}:Thing", field="--learner"),
    ):
        with pytest.raises(UserError, match=rf"^--learner: importing '{name}' .*raised {KINDS[fault]}"):
            load()


def test_a_module_whose_attributes_are_code_may_fail_there(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    (tmp_path / "asks_odd.py").write_text("def __getattr__(name):\n    raise SystemExit(name)\n")
    with pytest.raises(UserError, match=r"^--learner: importing 'asks_odd' raised SystemExit: Thing; "):
        load_plugin("learner", "asks_odd:Thing")
    (tmp_path / "imports_odd.py").write_text("import math\nmath.no_such_thing\nThing = 1\n")
    with pytest.raises(UserError, match="raised AttributeError: module 'math' has no attribute"):
        load_plugin("learner", "imports_odd:Thing")


def test_ctrl_c_inside_such_code_is_the_user_s(monkeypatch):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with ended_by_signals(), pytest.raises(KeyboardInterrupt), Plugin("--model", "m:N").call("forward"):
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("fault", ODD)
@pytest.mark.usefixtures("as_a_command")
def test_a_command_names_the_place_where_no_call_was_held(fault, capsys):
    def work():
        raise ODD[fault]()

    assert run_command(work, debug=False) == 1
    told = capsys.readouterr().err
    assert told.startswith(f"lasat-ray: error: {__file__} line ") and told.count("\n") == 1
    assert f"raised {KINDS[fault]}" in told and told.endswith("; correct that code\n")


def test_an_exception_is_described_whatever_its_message_does():
    assert described(Unspeakable()) == "Unspeakable: (its message cannot be shown: RuntimeError)"
    assert described(KeyError()) == "KeyError"
    assert described(ExceptionGroup("g", [ValueError("a\nb")])) == (
        "ExceptionGroup of 1, the first ValueError: a b"
    )
