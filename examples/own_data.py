"""Images of your own as one npz file: arrays of pixels and of labels, for training and for the test.

python -m examples.own_data shapes.npz
python -m lasat_ray.train --dataset npz:shapes.npz --epochs 2
"""

import sys

import numpy as np


def shapes(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(image [N,12,12] uint8, label [N]): a bright square (0) or a disc (1) on a dim, noisy ground."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 2, count)
    image = rng.integers(0, 80, (count, 12, 12))
    row, column = np.mgrid[:12, :12]
    for n in range(count):
        y, x = rng.integers(4, 8, 2)
        square = (abs(row - y) <= 3) & (abs(column - x) <= 3)
        disc = (row - y) ** 2 + (column - x) ** 2 <= 9
        image[n][disc if label[n] else square] += 150
    return image.astype(np.uint8), label


if __name__ == "__main__":
    image, label = shapes(600, seed=0)
    test_image, test_label = shapes(200, seed=1)
    np.savez(sys.argv[1], image=image, label=label, test_image=test_image, test_label=test_label)
