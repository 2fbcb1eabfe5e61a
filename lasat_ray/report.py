"""``python -m lasat_ray.report RUN [RUN ...] --out DIR``: figures, tables and manifests of runs."""

import sys

from lasat_ray.cli.command import command

main = command("lasat_ray.api.commands.report")

if __name__ == "__main__":
    sys.exit(main())
