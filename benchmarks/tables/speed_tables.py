"""Writes the speed tables and the picture of benchmarks/README.md from the committed records.

python -m benchmarks.tables.speed_tables          # rewrite the file between its markers
python -m benchmarks.tables.speed_tables --check  # exit status 1 if it would change
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.tables import speed_figure
from benchmarks.tables.marked import put_blocks

FOLDER = Path(__file__).parents[1]
ATTACK = "attack_speed_cpu_2026-11-28"
PROFILE = "attack_profile_cpu_2026-11-26"
EVALUATION = "evaluation_speed_digits_cpu_2026-11-24"
ROUNDS = (
    "round_cost_resnet18_2026-11-28",
    "round_cost_methods_2026-11-28",
    "round_cost_influence_2026-11-28",
    "round_cost_digits_2026-11-28",
)
TIMED = (ROUNDS[0], ROUNDS[1], ROUNDS[3])
"""Whose rooms are shown."""
EPOCHS = ("epoch_digits_cpu_2026-11-26", "epoch_resnet18_cpu_2026-11-26")
RUN = {
    name: f"run_cost_{name}_cpu_2026-11-26"
    for name in ("workers", "start_up", "batch_size", "dataset_size", "memory")
}
PICTURE = FOLDER / "speed.png"
SHOWN_K = ("1", "4", "10", "40")
KINDS = {"fixed": "fixed attack", "without reward": "LAS, no reward", "with reward": "LAS, rewarded"}


def read(name: str) -> dict[str, Any]:
    return json.loads((FOLDER / "records" / f"{name}.json").read_text())


def attack_table(record: dict[str, Any]) -> str:
    """One row a variant: median seconds and how many times as fast as the plain loop."""
    told = {"clock": "wall", **record["settings"]}
    lines = ["| variant | seconds | times as fast | lowest to highest |", "|---|---|---|---|"]
    plain = record["variants"]["plain loop"]["seconds"]
    for name, found in record["variants"].items():
        ratios = [a / b for a, b in zip(plain, found["seconds"], strict=True)]
        span = f"{min(ratios):.2f} to {max(ratios):.2f}"
        lines.append(f"| {name} | {found['median']:.1f} | {found['speedup']:.2f} | {span} |")
    lines += [
        "",
        f"{told['model']}, {told['batch_size']} images of 3x32x32, {record['mean_steps']:.2f} steps on "
        f"average, {told['threads']} thread(s), {told['repeats']} interleaved turns, {told['clock']} "
        f"time; medians, torch {record['packages']['torch']}.",
    ]
    return "\n".join(lines)


def evaluation_table(record: dict[str, Any]) -> str:
    """Ours beside the plain loop and beside the package, every turn's seconds, same images."""
    lines = [
        "| attack | variant | seconds of each turn | times as fast | accuracy, % |",
        "|---|---|---|---|---|",
    ]
    for attack, title in (("pgd_50", "PGD-50"), ("autoattack", "AutoAttack")):
        for name, found in record[attack]["variants"].items():
            seconds = ", ".join(f"{s:.1f}" for s in found["seconds"])
            told = f"{found['speedup']:.2f}" if "speedup" in found else ""
            lines.append(f"| {title} | {name} | {seconds} | {told} | {100 * found['accuracy'][-1]:.1f} |")
    lines += [
        "",
        f"A run of the digits recipe, {record['pgd_50']['n']} and {record['autoattack']['n']} test images, "
        "one thread a process; medians over interleaved turns, AutoAttack's against the faster of the "
        "package's two, the workers' start included.",
    ]
    return "\n".join(lines)


def round_table(records: list[dict[str, Any]]) -> str:
    """Cost against the same method with its fixed attack at several k."""
    lines = ["| LAS around | images | " + " | ".join(f"k={k}" for k in SHOWN_K) + " |"]
    lines.append("|---|---|" + "---|" * len(SHOWN_K))
    for record in records:
        for name, case in record["cases"].items():
            cells = [f"{case['ratio_at_k'][k]:.2f}" for k in SHOWN_K]
            size = str(case["config"]["batch_size"])
            lines.append("| " + " | ".join([label(name, record), size, *cells]) + " |")
    return "\n".join(lines)


def room_table(records: list[dict[str, Any]]) -> str:
    """Where the processor time of each kind of round goes."""
    every = [
        (f"{label(name, record)}, {case['config']['batch_size']} images", case)
        for record in records
        for name, case in record["cases"].items()
    ]
    rooms = sorted({room for _, case in every for kind in case["rooms"].values() for room in kind})
    lines = ["| % of a round | " + " | ".join(rooms) + " |", "|---|" + "---|" * len(rooms)]
    for name, case in every:
        for kind, title in KINDS.items():
            cells = [f"{100 * case['rooms'][kind].get(room, 0.0):.1f}" for room in rooms]
            lines.append(f"| {name}: {title} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def epoch_table(records: list[dict[str, Any]]) -> str:
    rooms = list(dict.fromkeys(room for record in records for room in record["epoch"]))
    lines = ["| % of an epoch | " + " | ".join(rooms) + " |", "|---|" + "---|" * len(rooms)]
    for record in records:
        cells = [f"{100 * record['epoch'].get(room, 0.0):.1f}" for room in rooms]
        lines.append(f"| {record['settings']['epoch_of']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def worker_table(record: dict[str, Any], memory: dict[str, Any]) -> str:
    """Throughput in process and on Ray, and what processes hold."""
    titles = {
        "0": f"in this process, {record['threads_of_the_first']} threads",
        "1": "one Ray worker, all threads",
        "2": "two Ray workers, one thread each",
    }
    lines = ["| where | images a second, each turn | largest memory of a worker, MiB |", "|---|---|---|"]
    for name, seconds in record["epoch_seconds"].items():
        speeds = ", ".join(f"{record['images'] / s:.1f}" for s in seconds)
        peaks = record["worker_peak_bytes"].get(name)
        lines.append(f"| {titles[name]} | {speeds} | {f'{max(peaks) / 2**20:.0f}' if peaks else ''} |")
    peaks = ", ".join(f"{b / 2**20:.0f} MiB with {n}" for n, b in memory["peak_bytes"].items())
    lines += [
        "",
        f"One worker: {record['one_worker_throughput_over_in_process']:.3f} times the throughput in process. "
        f"Two of one thread: {record['two_workers_throughput_over_one']:.3f} times that of one with all "
        f"threads. {record['settings']['model']}, {record['settings']['batch_size']} images a round, k = 4; "
        "medians of ratios turn by turn.",
        "",
        f"Largest memory of one training process ({memory['settings']['model']}, "
        f"{memory['settings']['batch_size']} images a round): {peaks} training images of "
        f"{memory['image_bytes']} bytes: {memory['bytes_an_image'] / memory['image_bytes']:.2f} times the "
        "bytes of the data set.",
    ]
    return "\n".join(lines)


def start_table(record: dict[str, Any]) -> str:
    lines = ["| workers | median, s | each turn |", "|---|---|---|"]
    for workers, seconds in record["seconds_to_first_round"].items():
        turns = ", ".join(f"{s:.1f}" for s in seconds)
        lines.append(f"| {workers} | {record['median'][workers]:.1f} | {turns} |")
    return "\n".join(lines)


def profile_table(record: dict[str, Any]) -> str:
    """Seconds of the attack's operators by kind, before and after."""
    before, after = record["seconds"]["before"], record["seconds"]["after"]
    lines = ["| operators | plain loop, s | share, % | ours, s | share, % |", "|---|---|---|---|---|"]
    for kind in before:
        cells = [f"{v[kind]:.2f} | {100 * v[kind] / sum(v.values()):.1f}" for v in (before, after)]
        lines.append(f"| {kind} | {' | '.join(cells)} |")
    lines.append(f"| all | {sum(before.values()):.2f} | | {sum(after.values()):.2f} | |")
    return "\n".join(lines)


def size_table(batch: dict[str, Any], dataset: dict[str, Any]) -> str:
    """Processor time an image against the size of the batch and of the data set."""
    sizes = list(batch["seconds_an_image"]["fixed"])
    lines = ["| images a round | " + " | ".join(sizes) + " |", "|---|" + "---|" * len(sizes)]
    for strategy, found in batch["seconds_an_image"].items():
        cells = [f"{1000 * median(seconds):.1f}" for seconds in found.values()]
        title = speed_figure.TITLES[strategy]
        lines.append(f"| {title}, ms an image | " + " | ".join(cells) + " |")
    ratios = dataset["beside_the_least"]
    lines += ["", "| training images | " + " | ".join(ratios) + " |", "|---|" + "---|" * len(ratios)]
    lines.append("| an image, beside the least | " + " | ".join(f"{r:.3f}" for r in ratios.values()) + " |")
    return "\n".join(lines)


def label(name: str, record: dict[str, Any]) -> str:
    """The case and its target net."""
    settings = record["settings"]
    return name if settings["digits"] else f"{settings['model']}, {name}"


def main(check: bool) -> int:
    run = {name: read(file) for name, file in RUN.items()}
    tables = {
        "attack": attack_table(read(ATTACK)),
        "profile": profile_table(read(PROFILE)),
        "evaluation": evaluation_table(read(EVALUATION)),
        "rounds": round_table([read(name) for name in ROUNDS]),
        "rooms": room_table([read(name) for name in TIMED]),
        "epochs": epoch_table([read(name) for name in EPOCHS]),
        "workers": worker_table(run["workers"], run["memory"]),
        "start-up": start_table(run["start_up"]),
        "sizes": size_table(run["batch_size"], run["dataset_size"]),
    }
    sizes, workers, data = run["batch_size"], run["workers"], run["dataset_size"]
    figure = speed_figure.speed_figure(read(ROUNDS[1]), sizes, workers, data)
    changed = put_blocks(FOLDER / "README.md", tables, check=check)
    if speed_figure.is_current(figure, PICTURE):
        return changed
    if not check:
        speed_figure.write(figure, PICTURE)
    return int(check)


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv[1:]))
