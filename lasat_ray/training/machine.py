"""What of a machine decides the last bits of a result, beside the run's own settings."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from lasat_ray.training.context import RunContext


def choose_arithmetic(tf32: str, device: torch.device) -> None:
    """How a GPU computes from here on in this process: the same bits each time, and of float32 what
    ``--speed.tf32`` names in TF32 on its tensor cores. Nothing on a processor."""
    if device.type == "cuda":
        torch.backends.cudnn.deterministic = True  # a resumed run has the same bits
        torch.backends.cudnn.allow_tf32 = tf32 != "none"
        torch.set_float32_matmul_precision("high" if tf32 == "all" else "highest")


def machine_state(device: torch.device) -> dict[str, Any]:
    """Threads, dtype, versions and instruction set: where all are equal, a resumed run has the same bits."""
    gpu = device.type == "cuda"
    tf32 = {"convolutions": "tf32" if torch.backends.cudnn.allow_tf32 else "ieee"} if gpu else {}
    return {
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if gpu else "cpu",
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "dtype": str(torch.get_default_dtype()),
        "matmul": torch.get_float32_matmul_precision(),
        **tf32,
        "torch": torch.__version__,
        "numpy": np.__version__,
    }


def keep_threads(saved: dict[str, Any] | None, same_workers: bool) -> None:
    """Compute with as many threads as the run did, however many cores there are now: sums are split by
    them. Not where the number of workers changed, which splits them anew anyway."""
    threads = (saved or {}).get("threads")
    if same_workers and type(threads) is int and 1 <= threads <= 1024 and threads != torch.get_num_threads():
        torch.set_num_threads(threads)


def keep_first_threads(context: RunContext) -> None:
    """Of a run that died before its first checkpoint the manifest says with how many threads it began; it
    begins anew with them. Before anything is computed, and before the first worker notes its own machine."""
    folder = context.folder
    if folder.has_checkpoint() or not (folder.path / "manifest.json").is_file():
        return
    saved = folder.read_json("manifest.json").get("machine")
    if isinstance(saved, dict):
        keep_threads(saved, saved.get("workers") == context.group.size)


def note_first_machine(context: RunContext) -> None:
    """Where the first round is played, in the manifest. By the first worker."""
    if (context.folder.path / "manifest.json").is_file():
        manifest = context.folder.read_json("manifest.json")
        manifest["machine"] = {**machine_state(context.device), "workers": context.group.size}
        context.folder.write_json("manifest.json", manifest)


def differences(saved: dict[str, Any] | None, here: dict[str, Any]) -> str | None:
    """One line on what differs from the machine of a checkpoint; None where nothing does, or where the
    checkpoint is of a version that did not say."""
    saved = saved or {}
    names = [name for name in here if name in saved and saved[name] != here[name]]
    changed = [f"{name} {saved[name]} -> {here[name]}" for name in names]
    if not changed:
        return None
    return f"goes on where other bits are computed ({', '.join(changed)}): results are equal up to rounding"


def moved(state: dict[str, Any] | None, context: RunContext) -> list[dict[str, Any]]:
    """Keeps the threads of a checkpoint, and gives a warning for the records where the machine differs."""
    if state is None:
        return []
    keep_threads(state.get("machine"), state["world_size"] == context.group.size)
    told = differences(state.get("machine"), machine_state(context.device))
    return [{"kind": "warning", "round": state["round"], "told": told}] if told else []
