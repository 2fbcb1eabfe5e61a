#!/usr/bin/env bash
# An environment as a GPU machine without a network has it: PyTorch 2.11 and what comes with it, and beside that
# only what one archive brings along. No Ray, no Optuna, no Plotly.
#   bash benchmarks/gpu/offline_environment.sh DEST           DEST/venv (several GB) and DEST/site.txz
#   bash benchmarks/gpu/offline_environment.sh DEST --pack    DEST/site.txz alone (about 1 MiB), to be sent there
# Then: PYTHON=DEST/venv/bin/python SITE=DEST/site.txz bash benchmarks/gpu/gpu_first.sh OUT
# INTERPRETER names another Python than python3.12, which such machines have.
set -euo pipefail
dest=${1:?usage: offline_environment.sh DEST [--pack]}
interpreter=${INTERPRETER:-python3.12}
there=('torch==2.11.*' torchvision numpy scipy scikit-learn pandas pyarrow safetensors matplotlib tensorboard pytest)
sent=(tensorboardX gymnasium farama-notifications pyautoattack tyro docstring-parser typeguard shtab rich)
mkdir -p "$dest"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$interpreter" -m venv "$work/pip"
"$work/pip/bin/python" -m pip install --quiet --no-deps --target "$work/site" "${sent[@]}"
rm -rf "$work/site/pyautoattack/examples" "$work/site/bin"
find "$work/site" -name __pycache__ -type d -prune -exec rm -rf {} +
tar c -C "$work/site" . | xz -6 -T2 > "$dest/site.txz"
ls -l "$dest/site.txz"
[ "${2:-}" = --pack ] && exit 0
"$interpreter" -m venv "$dest/venv"
"$dest/venv/bin/python" -m pip install --quiet "${there[@]}"
"$dest/venv/bin/python" -c 'import torch; print("torch", torch.__version__)'
