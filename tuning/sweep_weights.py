"""``python -m tuning.sweep_weights``: the reward's weights alpha (of L2) and beta (of L3)."""

import sys

from lasat_ray.tune.sweep_weights import main

if __name__ == "__main__":
    sys.exit(main())
