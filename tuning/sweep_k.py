"""``python -m tuning.sweep_k``: how often the strategy net learns (Table 1)."""

import sys

from lasat_ray.tune.sweep_k import main

if __name__ == "__main__":
    sys.exit(main())
