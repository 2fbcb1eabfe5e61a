"""Images from wherever they lie to the batches of every round: sources, split, augmentation, shards."""

from lasat_ray.data.batches import Batches, ordered_batches
from lasat_ray.data.images import ImageDataset, Images, split_validation
from lasat_ray.data.sources import SOURCES, load_dataset, load_extra

__all__ = [
    "SOURCES",
    "Batches",
    "ImageDataset",
    "Images",
    "load_dataset",
    "load_extra",
    "ordered_batches",
    "split_validation",
]
