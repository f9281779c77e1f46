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

# Older releases, for models that were saved with them (model.framework_version; OLDER_VERSIONS in
# modelstacks/core/contract.py). numpy and scipy are the newest that were tried with all of them.
pins=$(mktemp -d)
trap 'rm -r "$pins"' EXIT
sed -n 's/^\([a-z0-9-]*==[^\\]*[^\\ ]\) *\\$/\1/p' ../requirements.txt |
  grep -vE '^(scikit-learn|numpy|scipy)==' >"$pins/others.txt"
for version in 1.5 1.6 1.7 1.8; do
  printf 'scikit-learn==%s.*\nnumpy==2.4.6\nscipy==1.17.1\n' "$version" >"$pins/older.txt"
  "${UV:-uv}" pip compile --quiet --universal --generate-hashes --python-version 3.11 --no-annotate \
    --constraint "$pins/others.txt" --constraint "$pins/older.txt" --extra sklearn pyproject.toml \
    --custom-compile-command "sh serving/requirements/compile.sh" --output-file "requirements/sklearn-$version.txt"
done
