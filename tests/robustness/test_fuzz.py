"""Property: whatever stands in a file or on the command line, the answer is ours or a one-line UserError.

Never another exception, never more than 20 s of processor time nor 2 GiB of address space beyond what the
process has. LASAT_FUZZ=5000 gives each property so many examples; without it they are few.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import signal
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from lasat_ray.api.commands.leaderboard import measured_row, ranked
from lasat_ray.cli.parsing import flags_of
from lasat_ray.cli.run_options import parse_train
from lasat_ray.config import TrainConfig
from lasat_ray.config.json_io import config_from_json, config_to_json, leaves, read_config
from lasat_ray.errors import UserError
from lasat_ray.runs.checkpoint import FORMAT, load_checkpoint, save_checkpoint
from lasat_ray.runs.load import load_model, read_weights
from lasat_ray.validation import check
from tests.data.conftest import encode, load, pixels

EXAMPLES = int(os.environ.get("LASAT_FUZZ", "25"))
fuzzed = settings(
    max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), derandomize=EXAMPLES == 25
)
CPU_SECONDS, MEMORY = 20, 2 * 2**30


class Hangs(BaseException):
    """Not an Exception: readers turn those into UserErrors."""


def _ring(signum: int, frame: object) -> None:
    raise Hangs(f"more than {CPU_SECONDS} s of processor time")


@contextmanager
def bounded() -> Iterator[None]:
    """A limit of processor time and of memory for the time of the block."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limits = resource.getrlimit(resource.RLIMIT_AS)
    before = signal.signal(signal.SIGPROF, _ring)
    signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def only_user_errors(act: Callable[[], object]) -> object:
    with bounded():
        try:
            return act()
        except UserError as error:
            told: BaseException = error
    assert str(told) and "\n" not in str(told), told
    cause: BaseException | None = told
    while cause := cause.__cause__:
        assert not isinstance(cause, MemoryError), f"took more than {MEMORY} bytes: {told}"


EDITS = st.lists(
    st.tuples(
        st.sampled_from(["set", "flip", "insert", "delete", "copy", "cut"]),
        st.floats(0, 1, exclude_max=True),
        st.floats(0, 1, exclude_max=True),
        st.binary(min_size=1, max_size=8),
    ),
    min_size=1,
    max_size=5,
)


def edited(content: bytes, edits: list[tuple[str, float, float, bytes]]) -> bytes:
    for kind, where, share, new in edits:
        at = int(where * len(content))
        end = min(len(content), at + 1 + int(share * 64))
        if kind == "set":
            content = content[:at] + new + content[at + len(new) :]
        elif kind == "flip" and content:
            content = content[:at] + bytes([content[at] ^ new[0]]) + content[at + 1 :]
        elif kind == "insert":
            content = content[:at] + new + content[at:]
        elif kind == "delete":
            content = content[:at] + content[end:]
        elif kind == "copy":
            content = content[:at] + content[at:end] * (1 + new[0]) + content[end:]
        elif kind == "cut":
            content = content[:at]
    return content


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda node: st.lists(node, max_size=4) | st.dictionaries(st.text(max_size=6), node, max_size=4),
    max_leaves=8,
)
NUMBERS = st.sampled_from([0, -1, 2**31, 2**63, 10**30, -0.0, 1e-320, 1e308, float("inf"), float("nan")])
GOOD_CONFIG = config_to_json(TrainConfig())
FIELDS = [path for path, _ in leaves(TrainConfig())]


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose neighbours' tests do not take what is written here for theirs."""
    folder = tmp_path_factory.mktemp("scratch") / "files"
    folder.mkdir()
    return folder


@fuzzed
@given(edits=EDITS)
def test_bytes_of_a_config(edits: Any, scratch: Path) -> None:
    path = scratch / "config.json"
    path.write_bytes(edited(json.dumps(GOOD_CONFIG, indent=1).encode(), edits))
    only_user_errors(lambda: check(read_config(path)))


@fuzzed
@given(path=st.sampled_from(FIELDS), value=JSON | NUMBERS)
def test_a_field_of_a_config(path: str, value: Any) -> None:
    data = json.loads(json.dumps(GOOD_CONFIG))
    *groups, name = path.split(".")
    inner = data
    for group in groups:
        inner = inner[group]
    inner[name] = value
    only_user_errors(lambda: check(config_from_json(data)))


OPTIONS = sorted(flags_of(TrainConfig))
WORDS = st.text(max_size=8) | NUMBERS.map(str) | st.sampled_from(["8/255", "eps=1..2/0", "a:b", "--", "="])


@fuzzed
@given(argv=st.lists(st.sampled_from(OPTIONS) | WORDS, max_size=5))
@example(argv=["\n"])
def test_words_on_the_command_line(argv: list[str]) -> None:
    def act() -> None:
        try:
            check(parse_train(argv)[0])
        except SystemExit as stop:
            if stop.code:  # only --help may exit
                raise

    only_user_errors(act)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small data set of each kind."""
    folder = tmp_path_factory.mktemp("files")
    blobs, labels = [encode(pixels(n)) for n in range(9)], [n % 3 for n in range(9)]
    table = pa.table({"image": [{"bytes": blob, "path": None} for blob in blobs], "label": labels})
    for split in ("train", "test"):
        (folder / "pics" / split / "a").mkdir(parents=True)
        (folder / "pics" / split / "a" / "0.jpg").write_bytes(encode(pixels(1, 16, 16), "JPEG"))
        (folder / "pq").mkdir(exist_ok=True)
        pq.write_table(table, folder / "pq" / f"{split}-0.parquet", row_group_size=4)
    x = np.stack([pixels(n) for n in range(9)])
    np.savez_compressed(folder / "x.npz", image=x, label=labels, test_image=x, test_label=labels)
    return folder


DATA = {
    "npz:x.npz": "x.npz",
    "parquet:pq": "pq/train-0.parquet",
    "stream:pq": "pq/train-0.parquet",
    "imagefolder:pics": "pics/train/a/0.jpg",
}


@pytest.mark.parametrize("spelling", DATA)
@fuzzed
@given(edits=EDITS)
def test_bytes_of_a_data_set(spelling: str, edits: Any, files: Path) -> None:
    file = files / DATA[spelling]
    kind, _, place = spelling.partition(":")
    whole = file.read_bytes()
    file.write_bytes(edited(whole, edits))

    def act() -> None:
        data = load(f"{kind}:{files / place}")
        if kind == "stream":
            data.train.take(torch.arange(min(len(data.train), 9)))
        data.load_test()

    try:
        only_user_errors(act)
    finally:
        file.write_bytes(whole)


@fuzzed
@given(edits=EDITS, which=st.sampled_from(["best", "last"]))
def test_bytes_of_a_checkpoint(edits: Any, which: str, trained: Path, scratch: Path) -> None:
    path = scratch / f"{which}.safetensors"
    path.write_bytes(edited((trained / "checkpoints" / path.name).read_bytes(), edits))
    only_user_errors(lambda: load_model(path))
    only_user_errors(lambda: read_weights(path))


@fuzzed
@given(
    tree=JSON, card=st.dictionaries(st.sampled_from(["model", "num_classes", "image_shape"]), JSON | NUMBERS)
)
def test_contents_of_a_checkpoint_with_a_right_checksum(
    tree: Any, card: dict[str, Any], trained: Path, scratch: Path
) -> None:
    path = scratch / "forged.safetensors"
    text = json.dumps(tree)
    metadata = {"format": FORMAT, "tree": text, "sha256": hashlib.sha256(text.encode()).hexdigest()}
    header = json.dumps({"__metadata__": metadata}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    only_user_errors(lambda: load_checkpoint(path))
    good = load_checkpoint(trained / "checkpoints" / "best.safetensors")
    save_checkpoint(path, {**good, "card": {**good["card"], **card}})
    only_user_errors(lambda: load_model(path))


@fuzzed
@given(
    attacks=st.dictionaries(
        st.sampled_from(["clean", "aa", "pgd-10"]),
        JSON | st.fixed_dictionaries({"accuracy": JSON | NUMBERS, "norm": JSON, "eps": JSON | NUMBERS}),
    ),
    rest=st.dictionaries(st.sampled_from(["n", "dataset", "method", "extra_data", "sanity"]), JSON),
)
def test_an_evaluation(attacks: Any, rest: Any, scratch: Path) -> None:
    path = scratch / "evaluation.json"
    path.write_text(json.dumps({"n": 3, "sanity": {"verdict": "passed"}, **rest, "attacks": attacks}))

    def act() -> None:
        row = measured_row(path)
        ranked([row], row.dataset)

    only_user_errors(act)


def test_a_hang_and_a_glutton_would_be_noticed(tmp_path: Path) -> None:
    def glutton() -> None:
        try:
            np.ones(2 * MEMORY, np.uint8)
        except MemoryError as error:
            raise UserError("told") from error

    with pytest.raises(AssertionError, match="took more than"):
        only_user_errors(glutton)
    with pytest.raises(Hangs):
        only_user_errors(lambda: _ring(0, None))
