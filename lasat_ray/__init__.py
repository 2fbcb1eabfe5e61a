"""Adversarial training with a learnable attack strategy (LAS-AT, CVPR 2022), on Ray."""

__version__ = "0.1.0"
