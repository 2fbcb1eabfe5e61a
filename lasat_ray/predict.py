"""``python -m lasat_ray.predict RUN IMAGE...``: classes of image files, and whether they withstand an
attack."""

import sys

from lasat_ray.cli.command import command

main = command("lasat_ray.api.commands.predict")

if __name__ == "__main__":
    sys.exit(main())
