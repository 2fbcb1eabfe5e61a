"""A robust net of your own images, by Python alone: trained, attacked, used.

python -m examples.robust_net_of_own_images PHOTOS

PHOTOS holds ``train/CLASS/*`` and ``test/CLASS/*``, image files of one size. The recipe ``images`` chooses
net, batch and epochs by how many and how large they are; ``--epochs`` or ``--minutes`` make it shorter.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import lasat_ray


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--minutes", type=float, default=0.0)
    parser.add_argument("--out", default="runs/own")
    args = parser.parse_args()

    run = lasat_ray.train(
        "images",
        data=f"imagefolder:{args.photos.resolve()}",
        budget_minutes=args.minutes,
        out=args.out,
        **({"epochs": args.epochs} if args.epochs else {}),
    )

    found = lasat_ray.evaluate(run, attacks=("clean", "pgd-50", "apgd-ce"))
    for attack, accuracy in found.accuracy.items():
        print(f"{attack}: {accuracy:.1%} of {found.summary['n']} test images")

    (photo, *_) = sorted((args.photos / "test").rglob("*.*"))
    (told,) = lasat_ray.predict(run, photo, under_attack=True).summary
    kept = "and withstands an attack" if told["withstands"] else "until it is attacked"
    print(f"{photo.name}: {told['class']} ({told['confidence']:.0%}), {kept}")


if __name__ == "__main__":
    main()
