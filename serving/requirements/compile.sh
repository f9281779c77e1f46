#!/bin/sh
# Compiles requirements/<engine>.txt from pyproject.toml, with hashes and at the versions of the repository's own
# requirements.txt, so that what the tests ran is what the image gets. Needs uv (on PATH, or named by $UV).
set -eu
cd "$(dirname "$0")/.."
for engine in xgboost lightgbm sklearn onnx transformers script; do
  "${UV:-uv}" pip compile --quiet --universal --generate-hashes --python-version 3.11 --no-annotate \
    --constraint ../requirements.txt --extra "$engine" pyproject.toml \
    --custom-compile-command "sh serving/requirements/compile.sh" --output-file "requirements/$engine.txt"
done
