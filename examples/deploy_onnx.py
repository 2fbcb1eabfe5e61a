"""An exported net with onnxruntime, NumPy and Pillow alone: neither PyTorch nor lasat-ray is needed.

python -m lasat_ray.export RUN --format onnx --out model.onnx
python -m examples.deploy_onnx model.onnx photo.png ...
"""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image

session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
told = session.get_modelmeta().custom_metadata_map
channels, height, width = json.loads(told["image_shape"])
classes = json.loads(told["class_names"])


def pixels(file: str) -> np.ndarray:
    """[C,H,W] float32 in [0,1]; the file's normalization is inside the net."""
    image = Image.open(file).convert("L" if channels == 1 else "RGB")
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    x = np.asarray(image, dtype=np.float32).reshape(height, width, channels)
    return x.transpose(2, 0, 1) / 255


for row in json.loads(told.get("accuracies", "[]")):
    print(f"measured: {row['name']} {row['accuracy']:.1%} of {row['n']} images")
files = sys.argv[2:]
(logits,) = session.run(None, {"images": np.stack([pixels(file) for file in files])})
shares = np.exp(logits - logits.max(1, keepdims=True))
shares /= shares.sum(1, keepdims=True)
for file, share in zip(files, shares, strict=True):
    print(f"{file}: {classes[int(share.argmax())]} {share.max():.1%}")
