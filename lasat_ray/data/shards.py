"""Parquet files of images, local or at any fsspec URL: which there are, and any rows of them.

Hugging Face's layout: an image column with encoded bytes, an integer label, class names in the schema.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lasat_ray.config.files import check_regular
from lasat_ray.config.urls import filesystem_of, first_bytes, is_url
from lasat_ray.data.classes import Classes, match, relabelled
from lasat_ray.data.guard import check_bytes, check_expansion, check_labels, reading
from lasat_ray.errors import UserError

_BATCH = 64
"""Rows that are unpacked at once: one page can stand for any number of copies of a large image."""

_FIRST_BYTES = 65_536


@dataclass(frozen=True, slots=True, eq=False)
class Shards:
    """The files of one split, the two columns that matter, and where every row group lies.

    ``file``, ``place``: the number of each group's file, and the group's number in that file;
    ``first`` its first row in the split, with the number of all rows at the end. int64 [G], [G], [G+1].
    ``numbering``: of files that number the classes in another order than ``names``, their labels in ours.
    """

    files: tuple[str, ...]
    image: str
    label: str
    names: tuple[str, ...] | None
    file: np.ndarray
    place: np.ndarray
    first: np.ndarray
    numbering: dict[str, np.ndarray]

    @property
    def count(self) -> int:
        """Number of rows of the split over all of its shards."""
        return int(self.first[-1])


def read_shards(
    files: tuple[str, ...],
    *,
    image: str | None = None,
    label: str | None = None,
    names: tuple[str, ...] | None = None,
) -> Shards:
    """The two columns of a split and the row groups of all files.

    ``image`` and ``label`` are the columns' names, None for the usual ones. Labels count by ``names``, None
    for those of the first file that names its classes; files that name them in another order are renumbered.
    Only footers are read. UserError naming the file that lacks a column, has other classes or is damaged.
    """
    with reading(files[0]), _open(files[0]) as file:
        schema = file.schema_arrow
        image = _column(files[0], schema, "image", *([image] if image else ["img", "image"]))
        label = _column(files[0], schema, "label", *([label] if label else ["label", "fine_label"]))
    of: list[int] = []
    place: list[int] = []
    counts = [0]
    numbering: dict[str, np.ndarray] = {}
    reference = (files[0], names)
    for number, name in enumerate(files):
        with reading(name), _open(name) as file:
            _column(name, file.schema_arrow, "label", label)
            _column(name, file.schema_arrow, "image", image)
            # Runs of one label take no place in a file, and eight bytes a row in memory.
            check_expansion(8 * file.metadata.num_rows, _size(name), f"{name} {label}")
            groups = [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)]
            own = _names(file.schema_arrow, label)
        if own and reference[1] is None:
            reference = (name, own)
        elif own and reference[1]:
            mapping = match(Classes(own), Classes(reference[1]), name, reference[0])
            if mapping is not None:
                numbering[name] = mapping
        of += [number] * len(groups)
        place += range(len(groups))
        counts += groups
    arrays = (np.array(of, np.int64), np.array(place, np.int64), np.cumsum(counts, dtype=np.int64))
    return Shards(files, image, label, reference[1], *arrays, numbering)


def read_labels(shards: Shards, num_classes: int | None) -> np.ndarray:
    """Every label of the split, int64 [N], checked."""
    parts = [np.empty(0, dtype=np.int64)]
    for name in shards.files:
        with reading(name), _open(name) as file:
            column = file.read(columns=[shards.label]).column(0)
        parts.append(_labels(shards, column, partial(_where, name), name, num_classes))
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
        labels.append(_labels(shards, column, found.__getitem__, file, num_classes))

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


def file_identity(name: str) -> str:
    """A file's own name, its size and a hash of its first bytes: tells it from another without reading it."""
    with reading(name):
        fs, path = filesystem_of(name)
        first = hashlib.sha256(first_bytes(fs, path, _FIRST_BYTES)).hexdigest()
        return f"{path.rpartition('/')[2]} {int(fs.size(path))} {first}"


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


def _column(file: str, schema: pa.Schema, kind: str, *choices: str) -> str:
    for name in choices:
        if name in schema.names:
            return name
    raise UserError(
        f"{file}: has no column {' or '.join(choices)} (found {', '.join(schema.names)}); "
        f"name one with --data.{kind}-column"
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


def is_labelled(shards: Shards) -> bool:
    """Whether any row has a label: none of the published test parts of ImageNet and its kin has."""
    for name in shards.files:
        with reading(name), _open(name) as file:
            column = file.read(columns=[shards.label]).column(0)
        if not pa.types.is_integer(column.type) or not len(column):
            return True  # what is wrong with it is told when it is read
        if (highest := pc.max(column).as_py()) is not None and highest >= 0:
            return True
    return not shards.count


def _labels(
    shards: Shards, column: pa.ChunkedArray, where: Callable[[int], str], file: str, num_classes: int | None
) -> np.ndarray:
    """The labels of a file's rows, int64 [M], by the numbering of the split."""
    mapping = shards.numbering.get(file)
    limit = num_classes if mapping is None else len(mapping)
    return relabelled(_checked(column, where, file, shards.label, limit), mapping)


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
