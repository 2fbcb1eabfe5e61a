"""The speed tables of benchmarks/README.md, from the committed records."""

from __future__ import annotations

from statistics import median
from typing import Any

from benchmarks.common import read_record
from benchmarks.tables.marked import markdown
from benchmarks.tables.speed_figure import TITLES

Record = dict[str, Any]
ATTACK = "attack_speed_cpu_2026-11-28"
PROFILE = "attack_profile_cpu_2026-11-26"
EVALUATION = "evaluation_speed_digits_cpu_2026-11-24"
ROUNDS = [f"round_cost_{what}_2026-11-28" for what in ("resnet18", "methods", "influence", "digits")]
TIMED = (ROUNDS[0], ROUNDS[1], ROUNDS[3])
"""Those whose parts are shown."""
EPOCHS = ("epoch_digits_cpu_2026-11-26", "epoch_resnet18_cpu_2026-11-26")
SHOWN_K = ("1", "4", "10", "40")
KINDS = {"fixed": "fixed attack", "without reward": "LAS, no reward", "with reward": "LAS, rewarded"}
PLACES = {
    "0": "in this process, {} threads",
    "1": "one Ray worker, all threads",
    "2": "two Ray workers, one thread each",
}


def of_run(section: str) -> Record:
    """The record of a section of run_cost.py."""
    return read_record(f"run_cost_{section}_cpu_2026-11-26")


def attack_table(record: Record) -> str:
    """A row per variant: median seconds and how many times as fast as the plain loop."""
    told = {"clock": "wall", **record["settings"]}
    plain, rows = record["variants"]["plain loop"]["seconds"], []
    for name, found in record["variants"].items():
        ratios = [a / b for a, b in zip(plain, found["seconds"], strict=True)]
        span = f"{min(ratios):.2f} to {max(ratios):.2f}"
        rows.append([name, f"{found['median']:.1f}", f"{found['speedup']:.2f}", span])
    caption = (
        f"{told['model']}, {told['batch_size']} images of 3x32x32, {record['mean_steps']:.2f} steps on "
        f"average, {told['threads']} thread(s), {told['repeats']} interleaved turns, {told['clock']} "
        f"time; medians, torch {record['packages']['torch']}."
    )
    return markdown(["variant", "seconds", "times as fast", "lowest to highest"], rows, caption)


def profile_table(record: Record) -> str:
    """Seconds of the attack's operators by kind, before and after."""
    before, after = record["seconds"]["before"], record["seconds"]["after"]
    rows = [
        [
            kind,
            *(
                c
                for v in (before, after)
                for c in (f"{v[kind]:.2f}", f"{100 * v[kind] / sum(v.values()):.1f}")
            ),
        ]
        for kind in before
    ]
    rows.append(["all", f"{sum(before.values()):.2f}", "", f"{sum(after.values()):.2f}", ""])
    return markdown(["operators", "plain loop, s", "share, %", "ours, s", "share, %"], rows)


def evaluation_table(record: Record) -> str:
    """Ours beside the plain loop and beside the package, every turn's seconds, same images."""
    rows = [
        [
            title,
            name,
            ", ".join(f"{s:.1f}" for s in found["seconds"]),
            f"{found['speedup']:.2f}" if "speedup" in found else "",
            f"{100 * found['accuracy'][-1]:.1f}",
        ]
        for attack, title in (("pgd_50", "PGD-50"), ("autoattack", "AutoAttack"))
        for name, found in record[attack]["variants"].items()
    ]
    caption = (
        f"A run of the digits recipe, {record['pgd_50']['n']} and {record['autoattack']['n']} test images, "
        "one thread a process; medians over interleaved turns, AutoAttack's against the faster of the "
        "package's two, the workers' start included."
    )
    return markdown(
        ["attack", "variant", "seconds of each turn", "times as fast", "accuracy, %"], rows, caption
    )


def cases(names: tuple[str, ...] | list[str]) -> list[tuple[str, int, Record]]:
    """Every case of some records of round_cost.py: its title, images of a round, and what was found."""
    found = []
    for record in map(read_record, names):
        settings = record["settings"]
        for name, case in record["cases"].items():
            title = name if settings["digits"] else f"{settings['model']}, {name}"
            found.append((title, case["config"]["batch_size"], case))
    return found


def round_table() -> str:
    """Cost against the same method with its fixed attack at several k."""
    rows = [
        [title, size, *(f"{case['ratio_at_k'][k]:.2f}" for k in SHOWN_K)]
        for title, size, case in cases(ROUNDS)
    ]
    return markdown(["LAS around", "images", *(f"k={k}" for k in SHOWN_K)], rows)


def shares(titles: dict[str, dict[str, float]], columns: list[str], what: str) -> str:
    """Shares of the whole in percent, a row per title."""
    rows = [[title, *(f"{100 * part.get(c, 0.0):.1f}" for c in columns)] for title, part in titles.items()]
    return markdown([what, *columns], rows)


def room_table() -> str:
    """Where the processor time of each kind of round goes."""
    titles = {
        f"{title}, {size} images: {told}": case["rooms"][kind]
        for title, size, case in cases(TIMED)
        for kind, told in KINDS.items()
    }
    return shares(titles, sorted({room for part in titles.values() for room in part}), "% of a round")


def epoch_table() -> str:
    """Where the time of an epoch goes."""
    titles = {record["settings"]["epoch_of"]: record["epoch"] for record in map(read_record, EPOCHS)}
    return shares(
        titles, list(dict.fromkeys(room for part in titles.values() for room in part)), "% of an epoch"
    )


def worker_table(record: Record, memory: Record) -> str:
    """Throughput in process and on Ray, and what processes hold."""
    rows = []
    for name, seconds in record["epoch_seconds"].items():
        speeds = ", ".join(f"{record['images'] / s:.1f}" for s in seconds)
        peaks = record["worker_peak_bytes"].get(name)
        place = PLACES[name].format(record["threads_of_the_first"])
        rows.append([place, speeds, f"{max(peaks) / 2**20:.0f}" if peaks else ""])
    told, of_memory = record["settings"], memory["settings"]
    peaks = ", ".join(f"{b / 2**20:.0f} MiB with {n}" for n, b in memory["peak_bytes"].items())
    caption = (
        f"One worker: {record['one_worker_throughput_over_in_process']:.3f} times the throughput in process. "
        f"Two of one thread: {record['two_workers_throughput_over_one']:.3f} times that of one with all "
        f"threads. {told['model']}, {told['batch_size']} images a round, k = 4; medians of ratios turn by "
        f"turn.\n\nLargest memory of one training process ({of_memory['model']}, {of_memory['batch_size']} "
        f"images a round): {peaks} training images of {memory['image_bytes']} bytes: "
        f"{memory['bytes_an_image'] / memory['image_bytes']:.2f} times the bytes of the data set."
    )
    return markdown(["where", "images a second, each turn", "largest memory of a worker, MiB"], rows, caption)


def start_table(record: Record) -> str:
    """Seconds from the command to the first round."""
    rows = [
        [workers, f"{record['median'][workers]:.1f}", ", ".join(f"{s:.1f}" for s in seconds)]
        for workers, seconds in record["seconds_to_first_round"].items()
    ]
    return markdown(["workers", "median, s", "each turn"], rows)


def size_table(batch: Record, dataset: Record) -> str:
    """Processor time per image against the size of the batch and of the data set."""
    seconds, ratios = batch["seconds_an_image"], dataset["beside_the_least"]
    rows = [
        [f"{TITLES[strategy]}, ms an image", *(f"{1000 * median(turns):.1f}" for turns in found.values())]
        for strategy, found in seconds.items()
    ]
    below = [["an image, beside the least", *(f"{r:.3f}" for r in ratios.values())]]
    return (
        markdown(["images a round", *seconds["fixed"]], rows)
        + "\n\n"
        + markdown(["training images", *ratios], below)
    )


def tables() -> dict[str, str]:
    """Mark -> table."""
    return {
        "attack": attack_table(read_record(ATTACK)),
        "profile": profile_table(read_record(PROFILE)),
        "evaluation": evaluation_table(read_record(EVALUATION)),
        "rounds": round_table(),
        "rooms": room_table(),
        "epochs": epoch_table(),
        "workers": worker_table(of_run("workers"), of_run("memory")),
        "start-up": start_table(of_run("start_up")),
        "sizes": size_table(of_run("batch_size"), of_run("dataset_size")),
    }
