"""For every test: one thread a process, since tiny nets lose more to hand-overs than they gain."""

import torch
from hypothesis import settings

torch.set_num_threads(1)

# A busy machine is no fault of the code: what a test takes is bounded by its timeout alone.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")
