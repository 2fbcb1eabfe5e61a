"""``python -m lasat_ray.export RUN --format torch-export | onnx | safetensors | huggingface | card``:
the net as a file or folder for other programs, checked against the net.

Every file takes pixels in [0,1], normalization is inside, and the batch may have any size. A file
is run against the net before it gets its name; one that computes something else is not kept. Class names,
image size, budget and measured accuracies travel in its metadata.
"""

from __future__ import annotations

import json
import math
import shutil
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn
from tyro.conf import Positional, arg

from lasat_ray.cli.parsing import asks_help, parse
from lasat_ray.cli.run_options import Switch
from lasat_ray.cli.streams import make_console
from lasat_ray.config.files import check_local, place_of_results
from lasat_ray.errors import UsageError, UserError, install
from lasat_ray.evaluation.carried import carried, header
from lasat_ray.models import architecture, build_classifier, dtype_of
from lasat_ray.reporting.model_card import hub_files, model_card
from lasat_ray.reporting.write import make_folder
from lasat_ray.rng import RandomKey
from lasat_ray.runs.checkpoint import write_atomically
from lasat_ray.runs.load import EXPORTED, checkpoint_file, load_checkpointed
from lasat_ray.runs.mirror import named_run
from lasat_ray.runs.trust import check_folder

NAMES = {
    "torch-export": "model.pt2",
    "onnx": "model.onnx",
    "safetensors": EXPORTED,
    "huggingface": "huggingface",
    "card": "MODEL_CARD.md",
}
"""Format -> what is written in the run folder unless --out says where."""
CARD = "card.json"
"""What travels with a torch-export file, among its extra files."""
SIZES = (1, 5)  # batches on which a file is checked
Images = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """Which net is exported, and in which format."""

    run: Annotated[Positional[str], arg(metavar="RUN")]
    """Run folder or checkpoint file."""
    format: Literal["torch-export", "onnx", "safetensors", "huggingface", "card"] = "torch-export"
    """torch-export, onnx: the net's computation; safetensors: its weights; card: a model card in Markdown;
    huggingface: a folder with all of it but torch-export, for push_to_hub."""
    out: str | None = None
    """File (huggingface: folder) to write, new; None means model.pt2, model.onnx, ... in the run folder."""
    which: Literal["best", "last"] = "best"
    """Checkpoint of a run folder."""
    tolerance: float = 1e-4
    """Largest difference of logits between the file and the net."""
    trust: Switch = False
    """Run the code that a checkpoint names as module:function."""
    debug: Switch = False
    """Show tracebacks."""


def run(argv: Sequence[str]) -> int:
    """The command; exit status 0, or 1 where what it prints is lost. UserError for all else."""
    args = list(argv)
    if (not args or args[0].startswith("-")) and not asks_help(args):
        raise UsageError(
            "RUN is missing; write it first: python -m lasat_ray.export RUN_FOLDER --format onnx"
        )
    description = "A trained net as one file or folder for other programs, checked against the net."
    options = parse(ExportOptions, args, prog="python -m lasat_ray.export", description=description)
    path = Path(named_run(options.run))
    out = _place(options, path)
    check_folder(path, options.trust)
    file = checkpoint_file(path, options.which)
    net, card = load_checkpointed(file, trust=options.trust)
    card = carried(net, card, file)
    say = partial(make_console().print, highlight=False, markup=False, soft_wrap=True)
    if options.format == "card":
        write_atomically(out, model_card(card).encode())
        say(f"{out}: model card of {file}")
        return 0
    if options.format == "huggingface":
        difference, notes = export_folder(net, card, out, tolerance=options.tolerance)
        for note in notes:
            say(f"note: {note}")
    else:
        difference = export(net, card, options.format, out, tolerance=options.tolerance)
    shape = ", ".join(map(str, card["image_shape"]))
    told = f"images [B, {shape}] in [0,1] -> logits [B, {card['num_classes']}]"
    say(f"{out}: {told}; largest difference from the net {difference:.1e}")
    return 0


def _place(options: ExportOptions, path: Path) -> Path:
    """Where to write; UsageError where that is taken or cannot be."""
    if not 0 <= options.tolerance < math.inf:
        raise UsageError(f"--tolerance: {options.tolerance:g} is out of range; give 0 or more, say 1e-4")
    folder = path if path.is_dir() else path.parent
    check_local("--out", options.out)
    out = Path(options.out) if options.out else place_of_results(folder) / NAMES[options.format]
    if out.exists():
        raise UsageError(f"--out: '{out}' already exists; choose another file")
    if not options.out:
        make_folder(out.parent)  # beside a run that cannot be written
    if not out.parent.is_dir():
        raise UsageError(f"--out: the folder '{out.parent}' is not there; make it, or choose another file")
    return out


def export(net: nn.Module, card: dict[str, Any], kind: str, out: Path, *, tolerance: float) -> float:
    """Write ``net`` to ``out`` and return the largest difference of logits that the file shows.

    ``net``: x [B,C,H,W] in [0,1] -> logits [B,N], with its card, as ``load_checkpointed`` gives them; what
    ``carried`` adds to the card travels in the file. ``kind``: torch-export, onnx or safetensors. UserError
    where the format's package is missing, or the difference is beyond ``tolerance``.
    """
    unfinished = out.with_name(f".{out.stem}.unfinished{out.suffix}")
    write, read = FORMATS[kind]
    x = probe_images(net, card, max(SIZES))
    try:
        write(net, card, x, unfinished)
        run = read(unfinished, card)
        difference = max(float((run(x[:n]) - net(x[:n])).detach().abs().max()) for n in SIZES)
        if not difference <= tolerance:
            raise UserError(
                f"{out}: the file's logits differ from the net's by {difference:.1e}, more than "
                f"{tolerance:g}; it is not kept, raise --tolerance if that is enough for you"
            )
        unfinished.replace(out)
    except ImportError as error:
        raise UserError(f"--format {kind}: {error.name} is missing; {install('onnx')}") from error
    finally:
        unfinished.unlink(missing_ok=True)
    return difference


def export_folder(
    net: nn.Module, card: dict[str, Any], out: Path, *, tolerance: float
) -> tuple[float, list[str]]:
    """A folder as Hugging Face's hub shows it: model.safetensors, model.onnx, config.json, README.md.

    Returns the largest difference of logits, and what to tell, such as that the packages of ONNX are missing.
    Errors as ``export``; nothing is left where one is raised.
    """
    unfinished, notes = out.with_name(f".{out.name}.unfinished"), []
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        unfinished.mkdir()
        difference = export(net, card, "safetensors", unfinished / EXPORTED, tolerance=tolerance)
        try:
            onnx = export(net, card, "onnx", unfinished / NAMES["onnx"], tolerance=tolerance)
            difference = max(difference, onnx)
        except UserError as error:
            if not isinstance(error.__cause__, ImportError):
                raise
            notes.append(f"{out / NAMES['onnx']} is left out ({error.__cause__.name} is missing)")
        files = tuple(sorted(path.name for path in unfinished.iterdir()))
        for name, content in hub_files(card).items():
            write_atomically(unfinished / name, (json.dumps(content, indent=2) + "\n").encode())
        write_atomically(unfinished / "README.md", model_card(card, files).encode())
        unfinished.replace(out)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return difference, notes


def probe_images(net: nn.Module, card: dict[str, Any], count: int) -> Tensor:
    """[count,C,H,W] uniform in [0,1], in the precision of the weights."""
    return RandomKey.of("export").uniform(torch.arange(count), tuple(card["image_shape"]), dtype_of(net))


def write_torch_export(net: nn.Module, card: dict[str, Any], x: Tensor, file: Path) -> None:
    sizes = {"x": {0: torch.export.Dim("batch", min=1)}}
    program = torch.export.export(net, (x,), dynamic_shapes=sizes)
    torch.export.save(program, file, extra_files={CARD: json.dumps(header(card))})


def read_torch_export(file: Path, card: dict[str, Any]) -> Images:
    return torch.export.load(file).module()


def write_onnx(net: nn.Module, card: dict[str, Any], x: Tensor, file: Path) -> None:
    import onnx
    import onnxscript  # noqa: F401 - named in the error where it is missing

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            net,
            (x,),
            str(file),
            dynamo=True,
            external_data=False,
            verbose=False,
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes={"x": {0: torch.export.Dim("batch", min=1)}},
        )
    model = onnx.load(file)
    onnx.helper.set_model_props(model, header(card))
    onnx.save(model, file)


def read_onnx(file: Path, card: dict[str, Any]) -> Images:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return lambda x: torch.from_numpy(session.run(None, {"images": x.numpy()})[0])


def write_safetensors(net: nn.Module, card: dict[str, Any], x: Tensor, file: Path) -> None:
    weights = {name: value.detach().cpu().contiguous().clone() for name, value in net.state_dict().items()}
    # save, not save_file, which gives its files modes of their own
    file.write_bytes(save(weights, metadata={"format": "pt", **header(card)}))


def read_safetensors(file: Path, card: dict[str, Any]) -> Images:
    shape = tuple(card["image_shape"])
    net = build_classifier(
        architecture(card["model"]),
        num_classes=card["num_classes"],
        image_shape=shape,
        precision=card["precision"],
    )
    net.load_state_dict(load_file(file))
    return net.eval().requires_grad_(False)


Write = Callable[[nn.Module, dict[str, Any], Tensor, Path], None]
Read = Callable[[Path, dict[str, Any]], Images]
FORMATS: dict[str, tuple[Write, Read]] = {
    "torch-export": (write_torch_export, read_torch_export),
    "onnx": (write_onnx, read_onnx),
    "safetensors": (write_safetensors, read_safetensors),
}
"""Format -> how a file is written, and how it is run."""
