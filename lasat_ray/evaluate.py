"""``python -m lasat_ray.evaluate RUN --attacks clean pgd-10 aa``: accuracy of a net under attack."""

import sys

from lasat_ray.cli.command import command

main = command("lasat_ray.api.commands.evaluate")

if __name__ == "__main__":
    sys.exit(main())
