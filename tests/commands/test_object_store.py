"""A run in an object store that speaks S3, through s3fs: a server on this machine where moto is installed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lasat_ray.config.urls import filesystem_of, first_bytes
from lasat_ray.runs.mirror import local_path
from tests.support.commands import ROOT

from .test_resume_or_start import SETTINGS, equal, weights

EACH_EPOCH = [*SETTINGS, "--evaluation.every", "1"]
KILL = """
import os, signal, time
from lasat_ray.config.urls import filesystem_of
class Kill:
    def on_round(self, record):
        if record["round"] < 3:
            return
        until = time.monotonic() + 60
        while time.monotonic() < until:  # the first epoch is uploaded while the second one trains
            store, root = filesystem_of("URL")
            store.invalidate_cache()
            if any("upload-" in path for path in store.find(root)):
                break
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(scope="module")
def bucket():
    """Environment of a machine that reaches an empty S3 server under the bucket ``bucket``."""
    server = pytest.importorskip("moto.server").ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    boto3 = pytest.importorskip("boto3")
    pytest.importorskip("s3fs")
    server.start()
    _, port = server.get_host_and_port()
    secrets = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_DEFAULT_REGION": "us-east-1"}
    found = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", **secrets}
    keys = {"aws_access_key_id": "a", "aws_secret_access_key": "b", "region_name": "us-east-1"}
    boto3.client("s3", endpoint_url=found["AWS_ENDPOINT_URL"], **keys).create_bucket(Bucket="bucket")
    yield found
    server.stop()


class Machine:
    """A home and a present folder of their own."""

    def __init__(self, folder: Path, store: dict[str, str]):
        self.folder = folder
        folder.mkdir()
        path = os.pathsep.join([str(folder), str(ROOT), *sys.path])
        self.env = {**os.environ, **store, "HOME": str(folder), "OMP_NUM_THREADS": "1", "PYTHONPATH": path}

    def run(self, command: str, *words: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", f"lasat_ray.{command}", *words]
        return subprocess.run(
            command, cwd=self.folder, env=self.env, capture_output=True, text=True, timeout=200
        )


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_in_an_epoch_another_machine_goes_on_evaluates_and_reports(bucket, tmp_path, monkeypatch):
    for name, value in bucket.items():
        monkeypatch.setenv(name, value)
    calm = Machine(tmp_path / "calm", bucket)
    done = calm.run("train", *EACH_EPOCH, "--out", "s3://bucket/calm")
    assert done.returncode == 0 and "warning" not in done.stderr, done.stderr

    first, url = Machine(tmp_path / "first", bucket), "s3://bucket/some/run"
    (first.folder / "kill.py").write_text(KILL.replace("URL", url))
    assert first.run("train", *EACH_EPOCH, "--callbacks", "kill:Kill", "--out", url).returncode == -9
    store, root = filesystem_of(url)
    pointers = sorted(path for path in store.ls(root, detail=False) if path.endswith(".json"))
    assert pointers, "an epoch was uploaded before"
    # What a second command left when it died in an upload: a file cut short, and one that names it.
    whole = first_bytes(store, pointers[-1], 2**20)
    number = int(pointers[-1][-13:-5]) + 1
    store.pipe_file(f"{root}/upload-{number:08}.json", whole[: len(whole) // 2])
    store.pipe_file(f"{root}/upload-{number + 1:08}.json", b"")

    second = Machine(tmp_path / "second", bucket)
    done = second.run("train", "--resume", url)
    assert done.returncode == 0 and f"uploaded to {url}" in " ".join(done.stdout.split()), done.stderr
    ours, theirs = second.folder / local_path(url), calm.folder / local_path("s3://bucket/calm")
    for name in ("last", "best"):
        assert equal(weights(ours, name), weights(theirs, name))
    lines = [json.loads(line) for line in (ours / "metrics.jsonl").read_text().splitlines()]
    assert [r["round"] for r in lines if r["kind"] == "round"] == list(range(4))

    third = Machine(tmp_path / "third", bucket)
    done = third.run("evaluate", url, "--attacks", "clean", "--sanity-examples", "0")
    assert done.returncode == 0 and (third.folder / local_path(url) / "evaluation.json").is_file(), (
        done.stderr
    )
    done = third.run("report", url, "--no-png", "--n-examples", "8", "--out", "page")
    assert done.returncode == 0 and (third.folder / "page" / "report.html").is_file(), done.stderr


@pytest.mark.parametrize(("count", "most"), [(0, 10), (10, 10), (11, 10), (3, 10)])
def test_the_first_bytes_of_a_file_ask_for_no_range_behind_its_end(count, most, bucket, monkeypatch):
    for name, value in bucket.items():
        monkeypatch.setenv(name, value)
    store, path = filesystem_of(f"s3://bucket/file-{count}")
    store.pipe_file(path, bytes(range(count)))
    assert first_bytes(store, path, most) == bytes(range(min(count, most)))


@pytest.mark.parametrize(("count", "ranged"), [(0, False), (10, False), (11, True)])
def test_a_range_is_asked_for_only_within_a_longer_file(count, ranged):
    asked = []

    class Store:
        def size(self, path):
            return count

        def cat_file(self, path, **limits):
            asked.append(limits)
            return b""

    first_bytes(Store(), "x", 10)
    assert asked == [{"start": 0, "end": 10} if ranged else {}]
