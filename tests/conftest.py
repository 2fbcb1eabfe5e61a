"""For every test: one thread a process, since tiny nets lose more to hand-overs than they gain."""

import torch

torch.set_num_threads(1)
