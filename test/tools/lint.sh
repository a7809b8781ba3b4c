#!/usr/bin/env bash
# Formatting, vet, staticcheck, errcheck; govulncheck where its database can be reached.
set -uo pipefail
cd "$(dirname "$0")/../.."
STATICCHECK=honnef.co/go/tools/cmd/staticcheck@v0.8.2
ERRCHECK=github.com/kisielk/errcheck@v1.30.0
GOVULNCHECK=golang.org/x/vuln/cmd/govulncheck@v1.9.0
bad=0
say() { printf '%-12s %s\n' "$1" "$2"; }
step() { # name, command...
  name=$1; shift
  if out=$("$@" 2>&1); then say "$name" ok; else say "$name" FAILED; printf '%s\n' "$out" | head -60; bad=1; fi
}
unformatted=$(gofmt -l cmd internal test bench sdk 2>/dev/null | grep -v node_modules)
if [ -n "$unformatted" ]; then say gofmt FAILED; echo "$unformatted"; bad=1; else say gofmt ok; fi
step vet go vet ./...
step staticcheck go run "$STATICCHECK" ./...
step errcheck go run "$ERRCHECK" -ignoretests -exclude test/tools/errcheck.txt ./cmd/... ./internal/...
step tidy go mod tidy -diff
if out=$(timeout 120 go run "$GOVULNCHECK" ./cmd/... 2>&1); then say govulncheck ok
elif grep -qE 'fetching vulnerabilities|vuln.go.dev|connection refused|no such host|context deadline|Forbidden|timeout' <<<"$out" || [ $? -eq 124 ] || [ -z "$out" ]; then
  say govulncheck "not run: its database cannot be reached from here"
else say govulncheck FAILED; printf '%s\n' "$out" | head -60; bad=1; fi
exit $bad
