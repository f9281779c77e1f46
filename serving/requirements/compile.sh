#!/bin/sh
# Compiles requirements/<engine>.txt from pyproject.toml and model_server/engines/<engine>.json, with hashes and at the
# versions of the repository's own requirements.txt, so that what the tests ran is what the image gets. base.txt is for
# an engine without packages of its own. Needs uv (on PATH, or named by $UV) and python3 (or $PYTHON).
set -eu
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -r "$work"' EXIT

facts() { # facts ENGINE KEY...: prints what is under these keys, one item a line; nothing where there is none
  "${PYTHON:-python3}" -c '
import json, sys
found = json.load(open(f"model_server/engines/{sys.argv[1]}.json"))
for key in sys.argv[2:]:
    found = found.get(key, [])
print("\n".join(found))' "$@"
}
compile() { # compile NAME --constraint FILE...: what the base and $work/packages.txt ask for
  name=$1
  shift
  "${UV:-uv}" pip compile --quiet --universal --generate-hashes --python-version 3.11 --no-annotate \
    "$@" pyproject.toml "$work/packages.txt" \
    --custom-compile-command "sh serving/requirements/compile.sh" --output-file "requirements/$name.txt"
}

: >"$work/packages.txt"
compile base --constraint ../requirements.txt
sed -n 's/^\([a-z0-9-]*==[^\\]*[^\\ ]\) *\\$/\1/p' ../requirements.txt >"$work/pins.txt"
for file in model_server/engines/*.json; do
  engine=$(basename "$file" .json)
  facts "$engine" packages >"$work/packages.txt"
  compile "$engine" --constraint ../requirements.txt
  # Older releases, for models that were saved with them (model.framework_version).
  for series in $(facts "$engine" older_series); do
    facts "$engine" older_series "$series" >"$work/older.txt"
    sed 's/==.*/==/; s/^/^/' "$work/older.txt" >"$work/names.txt"
    grep -v -f "$work/names.txt" "$work/pins.txt" >"$work/others.txt"
    compile "$engine-$series" --constraint "$work/others.txt" --constraint "$work/older.txt"
  done
done
