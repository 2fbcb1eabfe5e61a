"""Images from wherever they lie to the batches of every round: sources, split, augmentation, shards."""

from lasat_ray.data.ahead import Ahead, by_thread
from lasat_ray.data.batches import Batches, ordered_batches
from lasat_ray.data.images import ImageDataset, Images, TrainingImages, split_validation
from lasat_ray.data.sources import SOURCES, load_dataset, load_extra
from lasat_ray.data.stream import ImageStream, Reading

__all__ = [
    "SOURCES",
    "Ahead",
    "Batches",
    "ImageDataset",
    "ImageStream",
    "Images",
    "Reading",
    "TrainingImages",
    "by_thread",
    "load_dataset",
    "load_extra",
    "ordered_batches",
    "split_validation",
]
