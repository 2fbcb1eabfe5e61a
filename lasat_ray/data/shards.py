"""Parquet files of images, local or at any fsspec URL: which there are, and any rows of them.

Hugging Face's layout: an image column with encoded bytes, an integer label, class names in the schema.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lasat_ray.config.files import check_regular
from lasat_ray.config.urls import filesystem_of, is_url
from lasat_ray.data.guard import check_bytes, check_expansion, check_labels, reading
from lasat_ray.errors import UserError

_BATCH = 64
"""Rows that are unpacked at once: one page can stand for any number of copies of a large image."""

_REMOTE = "check the address, and that what fsspec needs for it is installed"


@dataclass(frozen=True, slots=True, eq=False)
class Shards:
    """The files of one split, the two columns that matter, and where every row group lies.

    ``file``, ``place``: the number of each group's file, and the group's number in that file;
    ``first`` its first row in the split, with the number of all rows at the end. int64 [G], [G], [G+1].
    """

    files: tuple[str, ...]
    image: str
    label: str
    names: tuple[str, ...] | None
    file: np.ndarray
    place: np.ndarray
    first: np.ndarray

    @property
    def count(self) -> int:
        """Rows of the split."""
        return int(self.first[-1])


def find_folder(place: str, kind: str) -> str:
    """``place`` itself or the one folder in it that has train-*.parquet; a local path or a URL.

    UserError where there is none or more than one; ``kind`` is the source's name in the message.
    """
    with reading(place, _REMOTE):
        fs, root = filesystem_of(place)
        root = root.rstrip("/") or root
        if not fs.isdir(root):
            spelled = f"write {kind}:PATH with the folder of train-*.parquet"
            raise UserError(f"{place}: no such folder; {spelled}")
        inner = sorted(entry["name"] for entry in fs.ls(root, detail=True) if entry["type"] == "directory")
        outer = [_address(fs, path) for path in (root, *inner)]
    found = [path for path in outer if _matching(path, "train")]
    if not found:
        raise UserError(f"{outer[0]}: holds no train-*.parquet; name the folder that does")
    if len(found) > 1 and found[0] != outer[0]:
        first, second = (path.rpartition("/")[2] for path in found[:2])
        raise UserError(f"{outer[0]}: train-*.parquet is in {first} and {second}; name one of them")
    return found[0]


def find_split(folder: str, *prefixes: str) -> tuple[str, ...]:
    """PREFIX-*.parquet of the first prefix that has any, in the order of their names."""
    for prefix in prefixes:
        if files := _matching(folder, prefix):
            return files
    raise UserError(f"{folder}: holds no {prefixes[0]}-*.parquet; add the {prefixes[0]} images there")


def read_shards(files: tuple[str, ...]) -> Shards:
    """The columns of a split after the first file's schema, and the row groups of all files.

    Only footers are read. UserError naming the file that lacks a column or is damaged.
    """
    with reading(files[0]), _open(files[0]) as file:
        schema = file.schema_arrow
        image = _column(files[0], schema, "img", "image")
        label = _column(files[0], schema, "label", "fine_label")
        names = _names(schema, label)
    of: list[int] = []
    place: list[int] = []
    counts = [0]
    for number, name in enumerate(files):
        with reading(name), _open(name) as file:
            _column(name, file.schema_arrow, label)
            _column(name, file.schema_arrow, image)
            # Runs of one label take no place in a file, and eight bytes a row in memory.
            check_expansion(8 * file.metadata.num_rows, _size(name), f"{name} {label}")
            groups = [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)]
        of += [number] * len(groups)
        place += range(len(groups))
        counts += groups
    arrays = (np.array(of, np.int64), np.array(place, np.int64), np.cumsum(counts, dtype=np.int64))
    return Shards(files, image, label, names, *arrays)


def read_labels(shards: Shards, num_classes: int | None) -> np.ndarray:
    """Every label of the split, int64 [N], checked."""
    parts = [np.empty(0, dtype=np.int64)]
    for name in shards.files:
        with reading(name), _open(name) as file:
            column = file.read(columns=[shards.label]).column(0)
        parts.append(_checked(column, partial(_where, name), name, shards.label, num_classes))
    return np.concatenate(parts)


def largest_label(shards: Shards) -> int:
    """The largest label that the files' statistics tell, -1 without rows; reads a label column only
    where a file keeps none. UserError where it, or the smallest, is no class."""
    top = -1
    for name in shards.files:
        with reading(name), _open(name) as file:
            for group in range(file.num_row_groups):
                known = _label_range(file, group, shards.label)
                if known is None:
                    return max(read_labels(shards, None), default=-1)
                check_labels(np.array(known), None, lambda _: f"{name} row group {group}")  # noqa: B023
                top = max(top, known[1])
    return top


def read_images(shards: Shards, row_M: np.ndarray) -> tuple[list[bytes], list[str]]:
    """The encoded bytes of some rows (ascending, of the split), and the rows' names in messages."""
    blobs: list[bytes] = []
    names: list[str] = []

    def see(file: str, found: list[str], table: pa.Table) -> None:
        blobs.extend(_bytes(table.column(shards.image), found))
        names.extend(found)

    _visit(shards, row_M, (shards.image,), see)
    return blobs, names


def read_labelled(
    shards: Shards, row_M: np.ndarray, num_classes: int
) -> tuple[list[bytes], list[str], np.ndarray]:
    """``read_images`` and the rows' labels, int64 [M], checked."""
    blobs: list[bytes] = []
    names: list[str] = []
    labels = [np.empty(0, dtype=np.int64)]

    def see(file: str, found: list[str], table: pa.Table) -> None:
        blobs.extend(_bytes(table.column(shards.image), found))
        names.extend(found)
        column = table.column(shards.label)
        labels.append(_checked(column, found.__getitem__, file, shards.label, num_classes))

    _visit(shards, row_M, (shards.image, shards.label), see)
    return blobs, names, np.concatenate(labels)


def _visit(
    shards: Shards,
    row_M: np.ndarray,
    columns: tuple[str, ...],
    see: Callable[[str, list[str], pa.Table], None],
) -> None:
    """``see(file, names of rows, table)`` for the wanted rows, one row group in memory at a time.

    No group is read that holds none of the rows, and no file is opened twice.
    """
    group_M = np.searchsorted(shards.first, row_M, side="right") - 1
    for number in np.unique(shards.file[group_M]):
        file = shards.files[number]
        start = shards.first[np.flatnonzero(shards.file == number)[0]]
        with reading(file), _open(file) as opened:
            for group in np.unique(group_M[shards.file[group_M] == number]):
                rows = row_M[group_M == group]
                table = _rows(opened, int(shards.place[group]), rows - shards.first[group], columns, file)
                see(file, [_where(file, int(row - start)) for row in rows], table)


def _rows(
    file: pq.ParquetFile, group: int, row_M: np.ndarray, columns: tuple[str, ...], name: str
) -> pa.Table:
    """Some rows (ascending, not none) of a row group; UserError where it unpacks to far more than it
    takes in the file, before that memory is taken."""
    where = f"{name} row group {group}"
    chunks = [file.metadata.row_group(group).column(n) for n in range(file.metadata.num_columns)]
    chunks = [chunk for chunk in chunks if chunk.path_in_schema.split(".")[0] in columns]
    packed = min(sum(chunk.total_compressed_size for chunk in chunks), _size(name))
    declared = sum(chunk.total_uncompressed_size for chunk in chunks)
    check_bytes(declared, where)
    check_expansion(declared, packed, where)
    taken: list[pa.RecordBatch] = []
    first = unpacked = 0
    for batch in file.iter_batches(_BATCH, row_groups=[group], columns=list(columns)):
        unpacked += batch.nbytes
        check_expansion(unpacked, packed, where)
        wanted = row_M[(row_M >= first) & (row_M < first + len(batch))]
        taken.append(batch.take(pa.array(wanted - first)))
        first += len(batch)
        if first > row_M[-1]:
            break
    return pa.Table.from_batches(taken)


def _size(name: str) -> int:
    fs, path = filesystem_of(name)
    return int(fs.size(path))


@contextmanager
def _open(name: str) -> Iterator[pq.ParquetFile]:
    fs, path = filesystem_of(name)
    # pyarrow reads local files faster by itself
    filesystem = fs if is_url(name) else None
    if filesystem is None:
        check_regular(path)
    with pq.ParquetFile(path, filesystem=filesystem, page_checksum_verification=True) as file:
        yield file


def _matching(folder: str, prefix: str) -> tuple[str, ...]:
    fs, root = filesystem_of(folder)
    listed = sorted(entry["name"] for entry in fs.ls(root, detail=True))
    return tuple(
        _address(fs, path) for path in listed if fnmatch(path.rpartition("/")[2], f"{prefix}-*.parquet")
    )


def _address(fs: Any, path: str) -> str:
    """How a file is named and opened again: a plain path where it is local, else its URL."""
    return path if "file" in fs.protocol else fs.unstrip_protocol(path)


def _column(file: str, schema: pa.Schema, *choices: str) -> str:
    for name in choices:
        if name in schema.names:
            return name
    raise UserError(
        f"{file}: has no column {' or '.join(choices)} (found {', '.join(schema.names)}); rename one"
    )


def _names(schema: pa.Schema, label: str) -> tuple[str, ...] | None:
    text = (schema.metadata or {}).get(b"huggingface")
    try:
        names = json.loads(text)["info"]["features"][label]["names"] if text else None
    except (KeyError, TypeError):
        return None  # a label without names, or an older layout: numbered instead
    return tuple(map(str, names)) if isinstance(names, list) and names else None


def _label_range(file: pq.ParquetFile, group: int, label: str) -> tuple[int, int] | None:
    """The smallest and largest label of a row group after its statistics; None where it keeps none."""
    chunk = file.metadata.row_group(group).column(file.schema_arrow.names.index(label))
    kept = chunk.statistics if chunk.path_in_schema == label else None
    if kept is None or not kept.has_min_max or not isinstance(kept.max, int):
        return None
    return kept.min, kept.max


def _checked(
    column: pa.ChunkedArray, where: Callable[[int], str], file: str, label: str, num_classes: int | None
) -> np.ndarray:
    """A label column as int64 [N]; UserError where one is missing, no integer, or no class."""
    if not pa.types.is_integer(column.type):
        raise UserError(f"{file}: column {label} is {column.type}; want integers")
    if column.null_count:
        row = pc.index(pc.is_null(column), True).as_py()
        raise UserError(f"{where(row)}: has no label; correct or remove that row")
    label_N = column.to_numpy()
    check_labels(label_N, num_classes, where)
    return label_N.astype(np.int64)


def _where(file: str, row: int) -> str:
    return f"{file} row {row}"


def _bytes(column: pa.ChunkedArray, names: list[str]) -> list[bytes]:
    if pa.types.is_struct(column.type) and column.type.get_field_index("bytes") >= 0:
        column = pc.struct_field(column, "bytes")
    if not (pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type)):
        raise UserError(
            f"{names[0]}: image column is {column.type}; want encoded bytes, embedded in the file"
        )
    blobs = column.to_pylist()
    if None in blobs:
        raise UserError(f"{names[blobs.index(None)]}: holds no image bytes; embed the image in the file")
    return blobs
