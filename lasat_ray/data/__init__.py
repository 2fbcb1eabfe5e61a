"""Images from wherever they lie to the batches of every round: sources, split, augmentation, shards."""

from lasat_ray.data.batches import Batches, ordered_batches
from lasat_ray.data.held_out import OutcomeBatches, split_outcome
from lasat_ray.data.images import ImageDataset, Images, ReadOptions, TrainingImages, split_validation
from lasat_ray.data.prefetch import Prefetcher, thread_prefetch
from lasat_ray.data.sources import SOURCES, load_dataset, load_extra, load_test_alone, load_test_images
from lasat_ray.data.stream import ImageStream, Reading

__all__ = [
    "SOURCES",
    "Batches",
    "ImageDataset",
    "ImageStream",
    "Images",
    "OutcomeBatches",
    "Prefetcher",
    "ReadOptions",
    "Reading",
    "TrainingImages",
    "load_dataset",
    "load_extra",
    "load_test_alone",
    "load_test_images",
    "ordered_batches",
    "split_outcome",
    "split_validation",
    "thread_prefetch",
]
