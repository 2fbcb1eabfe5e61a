"""A target net of your own: any function that returns a module from pixels in [0,1] to logits.

python -m lasat_ray.train --model examples.own_model:mlp --epochs 2
"""

from torch import nn


def mlp(num_classes: int, image_shape: tuple[int, int, int]) -> nn.Module:
    """One hidden layer of 256 units."""
    channels, height, width = image_shape
    return nn.Sequential(
        nn.Flatten(), nn.Linear(channels * height * width, 256), nn.ReLU(), nn.Linear(256, num_classes)
    )
