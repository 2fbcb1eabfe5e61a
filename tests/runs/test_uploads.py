"""Uploads of a run folder: what is read is whole, whatever was cut off, lost or damaged there."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest

from lasat_ray.errors import UsageError, UserError
from lasat_ray.runs.mirror import KNOWN, Mirror, brought, local_path, mirrored
from lasat_ray.runs.uploads import OtherWriter, Upload, Uploads


@pytest.fixture(params=["memory", "file"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    name = uuid.uuid4().hex
    return f"memory://{name}/run" if request.param == "memory" else f"file://{tmp_path}/store/{name}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run folder as far as uploads look at it."""
    path = tmp_path / "here"
    (path / "checkpoints").mkdir(parents=True)
    (path / "config.json").write_text("{}")
    (path / "metrics.jsonl").write_text("one\n")
    (path / "checkpoints" / "last.safetensors").write_bytes(b"last 1")
    (path / ".run.lock").write_text("lock")
    (path / "checkpoints" / "newest.safetensors").write_bytes(b"not yet")
    return path


def content(path: Path) -> dict[str, bytes]:
    return {p.relative_to(path).as_posix(): p.read_bytes() for p in path.rglob("*") if p.is_file()}


def uploaded(path: Path) -> dict[str, bytes]:
    found = content(path)
    return {name: found[name] for name in found if not name.startswith(".") and "newest" not in name}


def next_epoch(folder: Path, number: int) -> None:
    last = folder / "checkpoints" / "last.safetensors"
    last.replace(folder / "checkpoints" / "previous.safetensors")
    last.write_bytes(b"last %d" % number)
    with open(folder / "metrics.jsonl", "a") as file:
        file.write(f"line {number}\n")


def objects(url: str) -> dict[str, bytes]:
    fs, root = fsspec.core.url_to_fs(url)
    return {path.removeprefix(root): fs.cat_file(path) for path in fs.find(root)}


def first() -> Upload:
    return Upload(run="a run", writer="a command")


def test_what_was_sent_is_what_is_fetched(url: str, folder: Path, tmp_path: Path) -> None:
    assert Uploads(url).newest() is None and Uploads(url).fetch(tmp_path / "none") is None
    known = Uploads(url).send(folder, first())
    for number in (2, 3, 4):
        next_epoch(folder, number)
        known = Uploads(url).send(folder, known)
    found = Uploads(url).fetch(tmp_path / "there")
    assert found == known and known.number == 4
    assert content(tmp_path / "there") == uploaded(folder)


def test_only_what_is_new_is_sent_and_two_uploads_are_kept(url: str, folder: Path) -> None:
    (folder / "data.npz").write_bytes(b"images")
    uploads = Uploads(url)
    known = uploads.send(folder, first())
    assert uploads.send(folder, known) == known
    sizes = []
    for number in range(2, 100):
        next_epoch(folder, number)
        before = objects(url)
        known = uploads.send(folder, known)
        now = objects(url)
        sizes.append({name: len(now[name]) for name in now if name not in before and "/data/" in name})
    assert all(sorted(size.values()) == sorted([len(b"last 50"), len(b"line 50\n")]) for size in sizes[20:40])
    pointers = [name for name in objects(url) if "upload-" in name]
    assert pointers == ["/upload-00000098.json", "/upload-00000099.json"]
    named = {digest for pieces in (known.files or {}).values() for digest, _ in pieces}
    assert (
        len([name for name in objects(url) if "/data/" in name]) == len(named) + 1
    )  # + one older checkpoint


def steps(url: str, folder: Path, known: Upload) -> int:
    """The writes of one upload."""
    calls = Broken(url, None)
    calls.send(folder, known)
    return calls.count


class Killed(BaseException):
    pass


class Broken(Uploads):
    """Uploads whose process dies before, or in the middle of, its write or removal number ``strike``."""

    def __init__(self, url: str, strike: int | None, torn: bool = False) -> None:
        super().__init__(url)
        self.count = 0
        real = self._fs

        class Fs:
            def __getattr__(self, name: str) -> Any:
                return getattr(real, name)

        self._fs = Fs()

        def struck(name: str) -> Callable[..., Any]:
            def call(path: str, *rest: Any, **options: Any) -> Any:
                self.count += 1
                if self.count == strike:
                    if torn and rest and isinstance(rest[0], bytes):
                        real.pipe_file(path, rest[0][: len(rest[0]) // 2])
                    raise Killed
                return getattr(real, name)(path, *rest, **options)

            return call

        for name in ("pipe_file", "rm_file", "makedirs"):
            setattr(self._fs, name, struck(name))


@pytest.mark.parametrize("torn", [False, True])
def test_killed_at_any_step_a_whole_upload_is_read(torn: bool, folder: Path, tmp_path: Path) -> None:
    urls = [f"memory://{uuid.uuid4().hex}" for _ in range(12)]
    known = [Uploads(url).send(folder, first()) for url in urls]
    next_epoch(folder, 2)
    known = [Uploads(url).send(folder, before) for url, before in zip(urls, known, strict=True)]
    old = uploaded(folder)
    next_epoch(folder, 3)
    new = uploaded(folder)
    total = steps(urls[0], folder, known[0])
    assert 6 <= total < 12
    seen = set()
    for strike in range(1, total + 1):
        url = urls[strike]
        with pytest.raises(Killed):
            Broken(url, strike, torn).send(folder, known[strike])
        there = tmp_path / f"{torn}{strike}"
        Uploads(url).fetch(there)
        assert content(there) in (old, new)
        seen.add(content(there) == new)
        Uploads(url).send(folder, Uploads(url).newest() or first())
        Uploads(url).fetch(tmp_path / f"{torn}{strike}again")
        assert content(tmp_path / f"{torn}{strike}again") == new
    assert seen == {False, True}


def damage(url: str, what: Callable[[str, bytes], bytes | None]) -> None:
    fs, root = fsspec.core.url_to_fs(url)
    for name, before in objects(url).items():
        after = what(name, before)
        if after is None:
            fs.rm_file(root + name)
        elif after != before:
            fs.pipe_file(root + name, after)


def test_a_damaged_upload_gives_way_to_the_one_before(url: str, folder: Path, tmp_path: Path) -> None:
    known = Uploads(url).send(folder, first())
    old = uploaded(folder)
    next_epoch(folder, 2)
    known = Uploads(url).send(folder, known)
    damage(url, lambda name, content: b"last X" if content == b"last 2" else content)
    found = Uploads(url).fetch(tmp_path / "there")
    assert found is not None and found.number == 1 and content(tmp_path / "there") == old
    damage(url, lambda name, content: None if content == b"last 1" else content)
    with pytest.raises(UserError, match=r"no whole upload is left \(data/"):
        Uploads(url).fetch(tmp_path / "more")


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/../../x", ".run.lock", "a\\..\\x", ""])
def test_a_strangers_upload_writes_nothing_elsewhere(name: str, folder: Path, tmp_path: Path) -> None:
    url = f"memory://{uuid.uuid4().hex}"
    Uploads(url).send(folder, first())
    pointer = json.loads(objects(url)["/upload-00000001.json"])
    pointer["files"][name] = pointer["files"].pop("config.json")
    fs, root = fsspec.core.url_to_fs(url)
    fs.pipe_file(f"{root}/upload-00000001.json", json.dumps(pointer).encode())
    assert Uploads(url).fetch(tmp_path / "a" / "b") is None and not (tmp_path / "a").exists()


def test_of_two_commands_at_one_url_one_ends(url: str, folder: Path) -> None:
    known = Uploads(url).send(folder, first())
    second = Upload(run="a run", writer="another", number=known.number, files=known.files)
    next_epoch(folder, 2)
    second = Uploads(url).send(folder, second)  # it went on where the first had come to
    next_epoch(folder, 3)
    with pytest.raises(OtherWriter, match="another command has uploaded here since this one began; end one"):
        Uploads(url).send(folder, known)
    assert Uploads(url).send(folder, second).number == 3
    with pytest.raises(OtherWriter):
        Uploads(url).send(folder, Upload(run="another run", writer="b"))


def test_a_store_that_was_emptied_gets_all_again(url: str, folder: Path, tmp_path: Path) -> None:
    known = Uploads(url).send(folder, first())
    damage(url, lambda name, content: None)
    assert Uploads(url).send(folder, known).number == 2
    Uploads(url).fetch(tmp_path / "there")
    assert content(tmp_path / "there") == uploaded(folder)


# The folder of this machine.


@pytest.fixture
def here(url: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The local folder of ``url``, in a present folder of its own."""
    monkeypatch.chdir(tmp_path)
    local_path(url).parent.mkdir()
    folder.rename(local_path(url))
    return tmp_path / local_path(url)


def run_once(url: str, **how: Any) -> list[str]:
    """A command that writes an epoch; what it was warned of."""
    told: list[str] = []
    with mirrored(url, told.append, **how) as mirror:
        assert mirror is not None
        mirror.on_start(local_path(url), None)  # type: ignore[arg-type]
        next_epoch(local_path(url), 2)
        mirror.on_checkpoint({})
    return told


def test_on_another_machine_the_upload_is_there_and_here_the_folder_counts(
    url: str, here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run_once(url) == []
    state = uploaded(here)
    next_epoch(here, 3)  # after the last upload
    assert brought(url, "--resume") == local_path(url) and uploaded(here) != state
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert uploaded(brought(url, "--resume")) == state
    run_once(url)
    (tmp_path / "elsewhere" / local_path(url) / "NOTES.txt").write_text("mine")
    monkeypatch.chdir(tmp_path)
    (here / "NOTES.txt").write_text("also mine")
    brought(url, "--resume")  # the other machine went on, so what it has counts
    there = uploaded(tmp_path / "elsewhere" / local_path(url))
    assert uploaded(here) == {**there, "NOTES.txt": b"also mine"}
    assert not list(here.glob(".fetched")) and (here / KNOWN).exists()


def test_a_fetch_that_was_cut_off_is_done_again(
    url: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_once(url)
    state = uploaded(here)
    known = json.loads((here / KNOWN).read_text())
    (here / KNOWN).write_text(json.dumps({**known, "number": -1}))
    (here / "checkpoints" / "last.safetensors").write_bytes(b"of another time")
    brought(url, "--resume")
    assert uploaded(here) == state
    (here / KNOWN).write_text(json.dumps({**known, "number": -1}))
    damage(url, lambda name, content: None)
    with pytest.raises(UserError, match="was being fetched from"):
        brought(url, "--resume")


def test_what_is_no_copy_of_the_url_is_refused_and_left(url: str, here: Path) -> None:
    before = content(here)
    with pytest.raises(UsageError, match=r"--resume: '.*' holds no run"):
        brought(url + "2", "--resume")
    Uploads(url).send(here, Upload(run="of elsewhere", writer="x"))
    with pytest.raises(UsageError, match="is the local copy of another run"):
        brought(url, "--resume")
    with pytest.raises(UsageError, match=r"--out: '.*' already holds a run; choose another"):
        run_once(url, new=True)
    assert content(here) == before


def test_an_upload_that_fails_is_told_once_and_made_up_for(
    url: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lasat_ray.runs.mirror._TRIES_S", (0.0, 0.1))
    real, down = Uploads.send, [True]

    def send(self: Uploads, folder: Path, known: Upload) -> Upload:
        if down[0]:
            raise UserError(f"{self.url}: cannot be written to (no route); check the address")
        return real(self, folder, known)

    monkeypatch.setattr(Uploads, "send", send)
    told: list[str] = []
    with mirrored(url, told.append) as mirror:
        assert mirror is not None
        mirror.on_start(local_path(url), None)  # type: ignore[arg-type]
        for number in (2, 3):
            next_epoch(here, number)
            mirror.on_checkpoint({})
            while mirror._failed is None or not mirror._asked.empty():
                pass
        down[0] = False
    assert len(told) == 1 and "(no route)" in told[0] and "the next epoch tries again" in told[0]
    found = Uploads(url).newest()
    assert found is not None and found.number == 1
    down[0] = True
    next_epoch(here, 4)
    with pytest.raises(UserError, match="no route"), mirrored(url, told.append):
        pass  # a run that is over, and whose end never arrived


def test_an_upload_that_hangs_holds_nobody_up(url: str, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leave = threading.Event()

    def hang(self: Uploads, folder: Path, known: Upload) -> Upload:
        leave.wait(30)
        return known

    monkeypatch.setattr(Uploads, "send", hang)
    with pytest.raises(UserError, match=r"the upload takes over 0\.3 s; the run is in .*, repeat"):
        run_once(url, bound_s=0.3)
    leave.set()


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(UserError, match=r"cannot be (read|written to) \(.*\); check"):
        Mirror(f"file://{tmp_path}/file/run", print).check(True)
    with pytest.raises(UsageError, match=r"--out: 'https://x/run' can only be read; name a bucket"):
        Mirror("https://x/run", print)
