"""``python -m tuning.search_strategy``: the learned strategy against hyper-parameter search (Figure 3)."""

import sys

from lasat_ray.tune.search_strategy import main

if __name__ == "__main__":
    sys.exit(main())
