"""The tables and the picture of docs/scaling.md, from the records."""

from __future__ import annotations

import statistics
from typing import Any

from benchmarks.common import ROOT, read_record
from benchmarks.tables.marked import markdown

NAMES = {"resnet18": "ResNet-18", "wrn-34-10": "WRN-34-10", "wrn-70-16": "WRN-70-16"}
MB, GB = 1e6, 1e9


def percent(share: float) -> str:
    return f"{100 * share:.1f}"


def streaming(record: dict[str, Any]) -> str:
    """Throughput and peak memory of each path."""
    settings, rows = record["settings"], []
    for threads, paths in record["seconds"].items():
        images = settings["window"] * settings["windows"]
        for name, seconds in paths.items():
            turns = [m / s for m, s in zip(paths["memory"], seconds, strict=True)]
            ratio = record["throughput_over_memory"][threads].get(name, 1.0)
            span = "" if name == "memory" else f"{min(turns):.2f} to {max(turns):.2f}"
            speed = f"{images / statistics.median(seconds):.0f}"
            peak = record["peak_resident_bytes"][name]
            memory = ", ".join(f"{what} {value / MB:.0f}" for what, value in peak.items())
            rows.append([threads, name, speed, f"{ratio:.2f}", span, memory])
    head = ["threads", "path", "img/s", "of memory's", "lowest to highest", "largest resident memory, MB"]
    whole = record["loading whole under the cap"].partition(".parquet: ")[2].partition(";")[0]
    told = (
        f"{settings['images']:,} JPEG images of {settings['side']}x{settings['side']}: "
        f"{record['encoded_bytes'] / GB:.1f} GB in files, {record['decoded_bytes'] / GB:.1f} GB decoded. "
        f"Streams by a thread: at most {settings['cap_mib']} MiB of private memory a process. With Ray: "
        f"{settings['ray_cap_mib']} MiB for all processes of the cluster together. Loading all images under "
        f"the first limit ended: a shard {whole}. PGD-AT on an {settings['model']}, windows of "
        f"{settings['window']} images, {settings['repeats']} interleaved turns, medians; the path in memory "
        f"holds {settings['per_file']:,} of the images."
    )
    if settings["windows"] % 2:
        told += " Of the two windows that Ray Data decodes at once the second was timed: an upper bound."
    return markdown(head, rows, told)


def counted(record: dict[str, Any]) -> str:
    """What was counted on each net."""
    rows = []
    for name, net in record["nets"].items():
        plain = 3 * net["flops"]
        attacked = plain + 17 * net["flops"] + net["strategy_flops"]
        attacked += (22 * net["flops"] + 4 * net["strategy_flops"]) / 40
        rows.append(
            [
                NAMES.get(name, name),
                f"{net['flops'] / 1e9:.2f}",
                f"{net['kernels']}",
                f"{plain / 1e9:.1f}",
                f"{attacked / 1e9:.1f}",
                f"{attacked / plain:.1f}",
                f"{net['gradient_bytes'] / MB:.1f}",
            ]
        )
    head = ["net", "GFLOP a pass", "operations a pass", "GFLOP an image, plain", "LAS-AT, k=40", "ratio"]
    sent = {kind: len(found) for kind, found in record["messages"].items()}
    told = (
        f"A round sends {sent['trains']} messages, a rewarded one {sent['rewarded']} (ResNet-18), with the "
        "vote that ends a round."
    )
    return markdown([*head, "MB summed a round"], rows, told)


def weak(record: dict[str, Any]) -> str:
    """Fixed images a GPU: plain training, LAS-AT, LAS-AT balanced."""
    gpus, rows = record["settings"]["gpus"], []
    for name in record["nets"]:
        for images in record["settings"]["per_gpu"]:
            found = {c["workers"]: c for c in record["cases"] if (c["net"], c["images"]) == (name, images)}
            for kind in ("plain", "adversarial", "balanced"):
                cells = [percent(found[n][kind]) for n in gpus]
                rows.append([NAMES.get(name, name), str(images), kind, *cells])
    return markdown(["net", "images a GPU", "training", *(f"{n:,}" for n in gpus)], rows)


def strong(record: dict[str, Any]) -> str:
    """A fixed round shared by more and more GPUs: speed-up over one GPU, for which all is compute."""
    gpus, total, rows = record["settings"]["gpus"], record["settings"]["total"], []
    for name in record["nets"]:
        found = {
            c["workers"]: c
            for c in record["cases"]
            if c["net"] == name and c["images"] == max(1, total // c["workers"])
        }
        for kind in ("adversarial", "balanced"):
            alone = found[1]["alone_ms"]
            cells = [f"{alone / (found[n]['alone_ms'] / found[n][kind]):.1f}" for n in gpus]
            rows.append([NAMES.get(name, name), kind, *cells])
    return markdown(["net", "training", *(f"{n:,}" for n in gpus)], rows)


def waits(record: dict[str, Any]) -> str:
    """What the slowest adds to a round, as drawn -> balanced."""
    gpus = sorted({row["workers"] for row in record["waits"]})
    pairs = sorted({(row["policy"], row["images"]) for row in record["waits"]}, key=lambda p: (p[0], p[1]))
    rows = []
    for policy, images in pairs:
        of = {r["workers"]: r for r in record["waits"] if (r["policy"], r["images"]) == (policy, images)}
        cells = [f"{percent(of[n]['wait'])} -> {percent(of[n]['wait_balanced'])}" for n in gpus]
        rows.append([policy, str(images), *cells])
    return markdown(["steps", "images a GPU", *(f"{n:,} GPUs" for n in gpus)], rows)


def measured(record: dict[str, Any]) -> str:
    """Two real processes."""
    rows = [
        [
            kind,
            str(len(of["steps"])),
            *(percent(of[f"{what}_excess"]) for what in ("seconds", "steps", "expected")),
        ]
        for kind, of in record["two processes"].items()
    ]
    what = ["processor time", "steps taken", "steps, expected"]
    return markdown(["attacks", "rounds", *(f"{name}: larger over mean, %" for name in what)], rows)


def draw(record: dict[str, Any]) -> None:
    """Efficiency against GPUs, and the wait for the slowest, from the record alone."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    images = min(record["settings"]["per_gpu"])
    styles = {"plain": ":", "adversarial": "-", "balanced": "--"}
    nets = list(record["nets"])
    for name, colour in ((nets[0], "#0072b2"), (nets[-1], "#d55e00")):
        found = [c for c in record["cases"] if (c["net"], c["images"]) == (name, images)]
        found = sorted({c["workers"]: c for c in found}.values(), key=lambda c: c["workers"])
        for kind, style in styles.items():
            values = [100 * c[kind] for c in found]
            label = f"{NAMES.get(name, name)}, {kind}"
            left.plot([c["workers"] for c in found], values, style, color=colour, label=label, marker=".")
    left.set(xscale="log", xlabel="GPUs", ylabel="efficiency, %", ylim=(0, 102))
    left.set_title(f"{images} images a GPU", fontsize=10)
    left.legend(frameon=False, fontsize=8, loc="lower left", handlelength=4)
    uniform = [r for r in record["waits"] if r["policy"].startswith("uniform") and r["images"] > 1]
    for size, colour in zip(sorted({r["images"] for r in uniform}), ("C1", "C2", "C0"), strict=True):
        rows = sorted((r for r in uniform if r["images"] == size), key=lambda r: r["workers"])
        for key, style in (("wait", "-"), ("wait_balanced", "--")):
            label = f"{size} images a GPU" + (", balanced" if "balanced" in key else "")
            values = [100 * r[key] for r in rows]
            right.plot([r["workers"] for r in rows], values, style, color=colour, label=label, marker=".")
    right.set(xscale="log", xlabel="GPUs", ylabel="wait for the slowest, % of a round", ylim=(-1, 34))
    right.set_title(f"{NAMES[nets[-1]]}, 3 to 14 steps equally likely", fontsize=10)
    right.legend(frameon=False, fontsize=8, loc="upper left", handlelength=4)
    for axes in (left, right):
        axes.set_xticks([1, 10, 100, 1000], ["1", "10", "100", "1,000"])
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(ROOT / "docs" / "figures" / "scaling.png", dpi=150)


def tables() -> dict[str, str]:
    """Mark -> table."""
    record = read_record("scaling")
    parts = (counted, weak, strong, waits, measured)
    return {"streaming": streaming(read_record("streaming_cpu")), **{p.__name__: p(record) for p in parts}}
