"""metrics.jsonl as a crash may have left it: read line by line, and cut back to a checkpoint."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from lasat_ray.runs.checkpoint import sync_folder, write_atomically

Record = dict[str, Any]


def records_in(path: Path) -> Iterator[Record]:
    """The records that can be read, in order; other lines are left out."""
    if path.is_file():
        for line in path.read_bytes().splitlines():
            if (record := _parsed(line)) is not None:
                yield record


def last_records(path: Path, max_bytes: int) -> list[Record]:
    """The records among the last ``max_bytes`` of the file that can be read, in order; [] where none is."""
    if not path.is_file():
        return []
    with open(path, "rb") as file:
        file.seek(max(0, path.stat().st_size - max_bytes))
        return [record for line in file.read().splitlines() if (record := _parsed(line)) is not None]


def untold(records: Iterable[Record], warnings: Iterable[str]) -> list[str]:
    """Those of ``warnings`` of which no record says the same: the words before the first colon."""
    told = {str(record["told"]).partition(":")[0] for record in records if record.get("kind") == "warning"}
    return [warning for warning in warnings if warning.partition(":")[0] not in told]


def cut_back(path: Path, offset: int, round: int) -> list[Record]:
    """Leave what was written before a checkpoint of ``round`` rounds, ``offset`` bytes long then.

    Returns a warning for every gap: a crash of the machine may lose lines, or leave zeros in their place.
    Such a file is written anew from the lines that can be read; a gap that was told before is not told again.
    """
    if not path.exists():
        return _gaps([], round)
    with open(path, "rb+") as file:
        content = file.read(offset)
        lines = content.splitlines()
        records = [record for line in lines if (record := _parsed(line)) is not None]
        whole = len(content) == offset and (not content or content.endswith(b"\n"))
        gaps = _gaps(records, round)
        # A checkpoint of before such a repair counts the bytes of a longer file.
        if round == 0 or (whole and len(records) == len(lines) and not gaps and _ends_at(records, round)):
            file.truncate(content.rfind(b"\n") + 1)
            return []
    kept = [record for record in records_in(path) if _belongs(record, round)]
    write_atomically(path, "".join(json.dumps(record) + "\n" for record in kept).encode())
    return _gaps(kept, round)


def sync(path: Path) -> None:
    """Bring a file that is written elsewhere, and its name, onto the disk. OSError where that fails."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
    sync_folder(path.parent)


def _parsed(line: bytes) -> Record | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    ours = isinstance(record, dict) and isinstance(record.get("kind"), str)
    return record if ours and type(record.get("round")) is int else None


def _belongs(record: Record, round: int) -> bool:
    return record["round"] < round if record["kind"] == "round" else record["round"] <= round


def _ends_at(records: list[Record], round: int) -> bool:
    return all(record["round"] < round for record in records if record["kind"] == "round")


def _gaps(records: Iterable[Record], round: int) -> list[Record]:
    """A warning for each run of rounds below ``round`` of which no record, and no earlier warning, tells."""
    seen: set[int] = set()
    for record in records:
        if record["kind"] in ("round", "nonfinite"):
            seen.add(record["round"])
        elif isinstance(lost := record.get("lost_rounds"), list):
            seen.update(range(lost[0], lost[1] + 1))
    warnings: list[Record] = []
    for missing in sorted(set(range(round)) - seen):
        if warnings and warnings[-1]["lost_rounds"][1] == missing - 1:
            warnings[-1]["lost_rounds"][1] = missing
        else:
            warnings.append({"kind": "warning", "round": round, "lost_rounds": [missing, missing]})
    for warning in warnings:
        first, last = warning["lost_rounds"]
        warning["told"] = (
            f"metrics.jsonl: the records of rounds {first} to {last} are lost, the weights are not"
        )
    return warnings
