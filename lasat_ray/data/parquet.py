"""Image parquet as Hugging Face writes it: an image column, an integer label, names in the schema."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from torch import Tensor

from lasat_ray.data.decode import Encoded, decode_all
from lasat_ray.data.guard import check_labels, reading
from lasat_ray.data.images import ImageDataset, Images, Request, number_names
from lasat_ray.errors import UserError

_REMEDY = "write all rows with one size"


@dataclass(frozen=True, slots=True)
class _Table:
    """The files of one split and the two columns that matter."""

    files: tuple[Path, ...]
    image: str
    label: str
    names: tuple[str, ...] | None


def load(request: Request) -> ImageDataset:
    """``parquet:PATH``; PATH, or one folder in it, holds train-*.parquet and test-*, valid-* or validation-*.

    Classes are named by the schema's ``huggingface`` entry, else numbered up to the largest
    training label. UserError naming the file, and where it applies the row.
    """
    folder = _folder(Path(request.place).expanduser())
    train, test = _table(_split(folder, "train")), _split(folder, "test", "valid", "validation")
    label_N = _labels(train, None if train.names is None else len(train.names))
    names = train.names or number_names(int(label_N.max()) + 1 if len(label_N) else 0)
    images = _images(train, label_N, request.train_rows(len(label_N)), channels=None)
    return ImageDataset(
        name=request.name,
        train=images,
        class_names=names,
        load_test=partial(_load_test, test, len(names), images.x.shape[1], request.test_rows),
    )


def _load_test(
    files: tuple[Path, ...], num_classes: int, channels: int, rows: Callable[[int], Tensor]
) -> Images:
    table = _table(files)
    label_N = _labels(table, num_classes)
    return _images(table, label_N, rows(len(label_N)), channels=channels)


def _folder(path: Path) -> Path:
    """``path`` itself or the one folder in it that has training files."""
    if not path.is_dir():
        raise UserError(f"{path}: no such folder; write parquet:PATH with the folder of train-*.parquet")
    inner = sorted(entry for entry in path.iterdir() if entry.is_dir())
    found = [entry for entry in (path, *inner) if list(entry.glob("train-*.parquet"))]
    if not found:
        raise UserError(f"{path}: holds no train-*.parquet; name the folder that does")
    if len(found) > 1 and found[0] != path:
        raise UserError(
            f"{path}: train-*.parquet is in {found[0].name} and {found[1].name}; name one of them"
        )
    return found[0]


def _split(folder: Path, *prefixes: str) -> tuple[Path, ...]:
    for prefix in prefixes:
        if files := sorted(folder.glob(f"{prefix}-*.parquet")):
            return tuple(files)
    raise UserError(f"{folder}: holds no {prefixes[0]}-*.parquet; add the {prefixes[0]} images there")


def _open(file: Path) -> pq.ParquetFile:
    return pq.ParquetFile(file, page_checksum_verification=True)


def _table(files: tuple[Path, ...]) -> _Table:
    """The columns of a split, after the first file's schema."""
    with reading(str(files[0])), _open(files[0]) as file:
        schema = file.schema_arrow
        image = _column(files[0], schema, "img", "image")
        label = _column(files[0], schema, "label", "fine_label")
        return _Table(files, image, label, _names(schema, label))


def _column(file: Path, schema: pa.Schema, *choices: str) -> str:
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


def _labels(table: _Table, num_classes: int | None) -> np.ndarray:
    """Every label of the split, int64 [N], checked."""
    parts = [np.empty(0, dtype=np.int64)]
    for file in table.files:
        with reading(str(file)), _open(file) as opened:
            _column(file, opened.schema_arrow, table.label)
            column = opened.read(columns=[table.label]).column(0)
        if not pa.types.is_integer(column.type):
            raise UserError(f"{file}: column {table.label} is {column.type}; want integers")
        if column.null_count:
            row = pc.index(pc.is_null(column), True).as_py()
            raise UserError(f"{file} row {row}: has no label; correct or remove that row")
        label_N = column.to_numpy()
        check_labels(label_N, num_classes, partial(_where, file))
        parts.append(label_N.astype(np.int64))
    return np.concatenate(parts)


def _where(file: Path, row: int) -> str:
    return f"{file} row {row}"


def _images(table: _Table, label_N: np.ndarray, rows: Tensor, *, channels: int | None) -> Images:
    """The chosen rows (ascending), decoded; no other row is."""
    blobs, names = _blobs(table, rows.numpy())
    encoded = Encoded(len(blobs), blobs.__getitem__, names.__getitem__)
    x = decode_all(encoded, channels=channels, remedy=_REMEDY)
    return Images(x, torch.from_numpy(label_N[rows.numpy()]))


def _blobs(table: _Table, row_M: np.ndarray) -> tuple[list[bytes], list[str]]:
    """The encoded bytes of the chosen rows and their names, one row group in memory at a time."""
    blobs: list[bytes] = []
    names: list[str] = []
    first = 0  # row of the split at which the current row group starts
    for file in table.files:
        start = first
        with reading(str(file)), _open(file) as opened:
            _column(file, opened.schema_arrow, table.image)
            for group in range(opened.num_row_groups):
                count = opened.metadata.row_group(group).num_rows
                chosen_M = row_M[(row_M >= first) & (row_M < first + count)] - first
                names += [_where(file, first - start + row) for row in chosen_M]
                if len(chosen_M):
                    column = opened.read_row_group(group, columns=[table.image]).column(0)
                    blobs += _bytes(column.take(pa.array(chosen_M)), names[len(blobs) :])
                first += count
    return blobs, names


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
