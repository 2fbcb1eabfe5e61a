"""``python -m lasat_ray.explain RUN IMAGE...``: what the nets make of single images, and how near
each is to being mistaken."""

import sys

from lasat_ray.cli.command import command

main = command("lasat_ray.api.commands.explain")

if __name__ == "__main__":
    sys.exit(main())
