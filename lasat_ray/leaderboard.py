"""``python -m lasat_ray.leaderboard PATH...``: many evaluations in one table, beside published rows."""

import sys

from lasat_ray.cli.command import command

main = command("lasat_ray.api.commands.leaderboard")

if __name__ == "__main__":
    sys.exit(main())
