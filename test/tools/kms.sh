#!/usr/bin/env bash
# AWS KMS as moto (PyPI) plays it, in a directory that is thrown away, and the test that wraps keys with it.
set -euo pipefail
cd "$(dirname "$0")/../.."
dir=$(mktemp -d)
trap 'kill "${pid:-}" 2>/dev/null || true; rm -rf "$dir"' EXIT
command -v python3 >/dev/null || { echo "needs python3 with venv"; exit 1; }
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install -q 'moto[server,kms]==5.1.4'
"$dir/venv/bin/moto_server" -H 127.0.0.1 -p 5055 >"$dir/log" 2>&1 &
pid=$!
for _ in $(seq 100); do curl -fs http://127.0.0.1:5055/moto-api/ >/dev/null && break; sleep 0.2; done
MOTO_URL=http://127.0.0.1:5055 go test -count=1 -tags kms -run TestAgainstMoto -v ./internal/vault/kms
