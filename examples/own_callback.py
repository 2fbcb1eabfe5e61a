"""A callback of your own: keeps every epoch's checkpoint, and says when a strategy grows hard.

python -m lasat_ray.train --callbacks examples.own_callback:KeepAll --epochs 2
"""

import shutil


class KeepAll:
    """Any of on_start, on_round, on_epoch, on_checkpoint, on_end; a class is made without arguments."""

    def on_start(self, folder, config):
        self.place, self.hardest = folder / "every_epoch", 0.0
        self.place.mkdir(exist_ok=True)

    def on_round(self, record):
        if record["eps"] > 1.2 * self.hardest > 0:
            print(f"round {record['round']}: mean eps {255 * record['eps']:.1f}/255")
        self.hardest = max(self.hardest, record["eps"])

    def on_checkpoint(self, record):
        if record["epoch"] is not None:
            shutil.copyfile(record["path"], self.place / f"epoch{record['epoch']}.safetensors")

    def on_end(self, record):
        print(f"{len(list(self.place.iterdir()))} epochs kept, clean {record['clean_acc']:.3f}")
