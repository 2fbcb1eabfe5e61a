"""Generated parts of a page: what stands between ``<!-- NAME -->`` and ``<!-- /NAME -->``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path


def put_blocks(page: Path, blocks: Mapping[str, str], *, check: bool) -> int:
    """Write each block between its marks; with ``check`` only compare. Exit status: 1 where a
    checked page would change. ValueError where a page has no such marks."""
    before = after = page.read_text()
    for name, block in blocks.items():
        marked = re.compile(f"<!-- {name} -->.*?<!-- /{name} -->", flags=re.S)
        if not marked.search(after):
            raise ValueError(f"{page.name}: the marks <!-- {name} --> <!-- /{name} --> are missing; add them")
        text = f"<!-- {name} -->\n{block}\n<!-- /{name} -->"
        after = marked.sub(text.replace("\\", r"\\"), after)
    if check:
        return int(before != after)
    page.write_text(after)
    return 0


def markdown(head: Sequence[object], rows: Iterable[Sequence[object]], told: str = "") -> str:
    """A Markdown table, and below it what it rests on."""
    lines = ["| " + " | ".join(map(str, line)) + " |" for line in (head, *rows)]
    lines.insert(1, "|" + "---|" * len(head))
    return "\n".join([*lines, "", told] if told else lines)
