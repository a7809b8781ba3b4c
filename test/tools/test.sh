#!/usr/bin/env bash
# go test with the race detector. With CI=true a skipped test fails the run: a test that does not run proves nothing.
set -uo pipefail
cd "$(dirname "$0")/../.."

race=-race
command -v gcc >/dev/null 2>&1 || { race=; echo "no gcc: running without the race detector"; [ "${CI:-}" = true ] && exit 1; }
[ -d test/tools/node_modules/.bin ] && export FRONTDESK_NODE="${FRONTDESK_NODE:-$PWD/test/tools/node_modules/.bin/node}"

out=$(mktemp)
built=$(mktemp -d)
trap 'rm -rf "$out" "$built"' EXIT
chmod 755 "$built"
go build -o "$built/frontdesk" ./cmd/frontdesk && export FRONTDESK_BINARY="$built/frontdesk"
go test $race -timeout 20m -json "$@" >"$out"
status=$?

go run ./test/tools/report "$out"
report=$?
[ $status -eq 0 ] && [ $report -eq 0 ]
