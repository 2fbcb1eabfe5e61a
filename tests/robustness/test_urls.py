"""Addresses: the listed protocols alone are opened, and those of a folder handed over only with --trust."""

from __future__ import annotations

import json
import shutil
import threading
import tomllib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import fsspec
import pytest
from packaging.version import Version

from lasat_ray import evaluate, explain, export, leaderboard, report, train
from lasat_ray.config.urls import PROTOCOLS, filesystem_of
from lasat_ray.errors import UserError
from lasat_ray.runs.folder import RunFolder
from lasat_ray.tune.storage import Store
from tests.data.conftest import load

REFUSED = [
    "reference://::data:application/json,{}",
    "simplecache::http://HOST/x",
    "zip://x::http://HOST/x.zip",
    "http://HOST/x::reference://y",
    "data://application/json,{}",
    "github://u:r@main/x",
    "ftp://HOST/x",
    "HTTP://HOST/x",
    "://HOST",
]


@pytest.fixture
def asked() -> Iterator[tuple[str, list[str]]]:
    """(HOST:PORT of a server on this machine, the paths it was asked for)."""
    paths: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            paths.append(self.path)
            self.send_error(404)

        do_HEAD = do_GET

        def log_message(self, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"127.0.0.1:{server.server_port}", paths
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def run(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained, tmp_path / "run")
    return tmp_path / "run"


def plant(run: Path, url: str, field: str = "dataset") -> None:
    config = json.loads((run / "config.json").read_text())
    group, _, name = field.rpartition(".")
    (config[group] if group else config)[name] = f"stream:{url}"
    config["data"] |= {"max_train": None, "extra_fraction": 0.5 if name == "extra" else 0.0}
    (run / "config.json").write_text(json.dumps(config))


COMMANDS = {
    "train": (train.main, ("--resume", "run")),
    "evaluate": (evaluate.main, ("run", "--attacks", "clean")),
    "explain": (explain.main, ("run", "0")),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_an_address_of_a_handed_over_run_is_not_opened_without_trust(run, name, asked, monkeypatch, capsys):
    host, paths = asked
    (run / "summary.json").unlink()
    plant(run, f"http://{host}/set")
    command, args = COMMANDS[name]
    monkeypatch.setattr("sys.argv", ["lasat", *args])
    assert command() == 2
    err = capsys.readouterr().err
    assert f"run/config.json: its --dataset is an address, 'stream:http://{host}/set'; if you trust it" in err
    assert err.count("\n") == 1 and not paths
    monkeypatch.setattr("sys.argv", ["lasat", *args, "--trust"])
    assert command() == 1 and paths, "the address is opened with --trust, so that the test can fail"


def test_a_report_leaves_out_the_net_that_an_address_belongs_to(run, asked, monkeypatch, capsys):
    host, paths = asked
    plant(run, f"http://{host}/set")
    assert report.main(["run", "--no-png"]) == 0
    assert "its net is left out: run/config.json: its --dataset is an address" in capsys.readouterr().err
    assert export.main(["run", "--format", "safetensors"]) == 0  # neither reads a data set
    assert leaderboard.main(["run"]) == 1
    assert not paths


def test_an_address_in_any_setting_is_seen(run, asked, monkeypatch, capsys):
    host, paths = asked
    plant(run, f"http://{host}/extra", "data.extra")
    monkeypatch.setattr("sys.argv", ["lasat", "--resume", "run"])
    assert train.main() == 2
    assert "its --data.extra is an address" in capsys.readouterr().err and not paths


@pytest.mark.parametrize("url", REFUSED)
def test_chains_and_other_protocols_are_refused_even_with_trust(run, url, asked, monkeypatch, capsys):
    host, paths = asked
    url = url.replace("HOST", host)
    plant(run, url)
    (run / "summary.json").unlink()
    for command, args in COMMANDS.values():
        monkeypatch.setattr("sys.argv", ["lasat", *args, "--trust"])
        assert command() in (1, 2)
        err = capsys.readouterr().err
        assert err.count("\n") == 1 and url in err
    with pytest.raises(UserError, match=r"chain of addresses|is no protocol"):
        Store(url)
    assert not paths


@pytest.mark.parametrize("place", ["data:application/json,{}", "zip::/etc/x.zip", "reference::/etc/passwd"])
def test_a_path_that_fsspec_would_take_for_an_address_is_a_path(place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fs, path = filesystem_of(place)
    assert "file" in fs.protocol and path == str(tmp_path / place)
    with pytest.raises(UserError, match="no such folder"):
        load(f"parquet:{place}")


def test_what_a_server_lists_is_checked_like_any_address():
    """A server lists its folder, and what it lists is opened next."""
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/shop/a::reference:/train-0.parquet", b"PAR1")
    try:
        with pytest.raises(UserError, match="chain of addresses"):
            load("stream:memory://shop")
    finally:
        memory.rm("/shop", recursive=True)


def test_file_and_memory_are_read(tmp_path):
    for protocol in ("file", "memory"):
        assert protocol in PROTOCOLS
        fs, path = filesystem_of(f"{protocol}://{tmp_path}/x")
        assert protocol in fs.protocol and path.endswith("/x")


def test_the_lowest_fsspec_renders_no_templates_of_a_stranger():
    """Before 2026.6 ``reference`` gave jinja2, outside its sandbox, whatever a file said."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    (wanted,) = (name for name in project["project"]["dependencies"] if name.startswith("fsspec"))
    lowest = wanted.removeprefix("fsspec>=")
    assert Version("2026.6") <= Version(lowest) <= Version(fsspec.__version__)


def test_a_run_on_an_address_that_the_user_names_needs_no_trust(run, asked, monkeypatch, capsys):
    host, paths = asked
    plant(run, f"http://{host}/set")
    (run / "summary.json").unlink()
    assert RunFolder.open(run).config().dataset == f"stream:http://{host}/set"
    monkeypatch.setattr("sys.argv", ["lasat", "--resume", "run", "--dataset", f"stream:http://{host}/set"])
    assert train.main() == 1 and paths
    assert "is an address" not in capsys.readouterr().err
