#!/usr/bin/env bash
# Runs the attack catalogue: test names begin with the attack's number. Ends with 'N passed, N failed'.
set -uo pipefail
cd "$(dirname "$0")/../.."
out=$(mktemp)
trap 'rm -f "$out"' EXIT
go test -count=1 -json ./test/attacks/... >"$out"
go run ./test/tools/report "$out"
