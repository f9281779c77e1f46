#!/bin/sh
# Installs the model server for one engine into PREFIX: a virtual environment with pinned, hashed packages, and the
# model_server package. The image's build stage and the embedded cloud run this script; root is not needed.
#
#     sh install.sh PREFIX ENGINE          ENGINE: a module of model_server/engines/, such as xgboost
#
# PYTHON names the interpreter (default: python3). TORCH=<version> adds PyTorch, for transformers without ONNX weights.
# FRAMEWORK_VERSION=<series> takes requirements/ENGINE-<series>.txt: an older release of the engine's library.
# uv is used where it is on PATH or named by $UV; pip where there is none, or where uv fails. Both check every hash and
# trust the system's certificates, so that an organisation's own proxy or index can be used.
set -eu

usage() {
  echo "usage: sh install.sh PREFIX ENGINE  (one of: $engines)" >&2
  exit 2
}

here=$(cd "$(dirname "$0")" && pwd)
engines=$(cd "$here/model_server/engines" && for file in [a-z]*.py; do printf '%s ' "${file%.py}"; done)
[ "$#" -eq 2 ] && [ "${2#_}" = "$2" ] && [ -f "$here/model_server/engines/$2.py" ] || usage
prefix=$1
requirements=$here/requirements/$2${FRAMEWORK_VERSION:+-$FRAMEWORK_VERSION}.txt
# An engine without packages of its own has no file of pins.
[ -f "$requirements" ] || [ -n "${FRAMEWORK_VERSION:-}" ] || requirements=$here/requirements/base.txt
[ -f "$requirements" ] || usage

"${PYTHON:-python3}" -m venv "$prefix/venv"
prefix=$(cd "$prefix" && pwd)
python=$prefix/venv/bin/python

export UV_SYSTEM_CERTS="${UV_SYSTEM_CERTS:-true}"
for bundle in /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt /etc/ssl/cert.pem; do
  [ ! -f "$bundle" ] || export REQUESTS_CA_BUNDLE="${REQUESTS_CA_BUNDLE:-$bundle}"
done

uv=${UV:-$(command -v uv || true)}
install() {
  [ -n "$uv" ] && "$uv" pip install --quiet --python "$python" --no-build-isolation --require-hashes --requirement "$1" ||
    "$python" -m pip install --quiet --disable-pip-version-check --no-cache-dir --no-build-isolation --use-pep517 \
      --require-hashes --requirement "$1"
}
# What is published as source is built with the pinned setuptools, not with whatever is newest.
builder=$prefix/setuptools.txt
sed -n '/^setuptools==/,/[^\\]$/p' "$requirements" >"$builder"
[ ! -s "$builder" ] || install "$builder"
rm "$builder"
install "$requirements"
if [ -n "${TORCH:-}" ]; then
  # Apart from the hashed file, since its builds differ by machine; the CPU's own build where there is an index of it.
  "$python" -m pip install --quiet --disable-pip-version-check --no-cache-dir "torch==$TORCH"
fi

site=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
rm -rf "$site/model_server"
cp -R "$here/model_server" "$site/model_server"
find "$site/model_server" -name __pycache__ -type d -prune -exec rm -rf {} +
# Only what is imported at start is worth the time: a read-only root could not keep it later. The libraries' own
# tests may hold files that do not compile, which is no fault.
"$python" -m compileall -q "$site" >/dev/null 2>&1 || true
"$python" -c 'import model_server.worker'
