"""``python -m lasat_ray.export RUN --format torch-export | onnx | safetensors | huggingface | card``:
the net as a file or folder for other programs, checked against the net."""

import sys

from lasat_ray.cli.command import command

main = command("lasat_ray.api.commands.export")

if __name__ == "__main__":
    sys.exit(main())
