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
step budgets go test -count=1 -run 'Test(Floors|OneDoor|TheWaist|Budgets)' ./internal
# govulncheck ends with status 3 when it has found something; go run tells it so. Any other failure is of its own: most often
# that its database (vuln.go.dev) cannot be reached from here.
out=$(timeout 120 go run "$GOVULNCHECK" ./cmd/... 2>&1); status=$?
if [ $status -eq 0 ]; then say govulncheck ok
elif grep -q '^exit status 3$' <<<"$out"; then say govulncheck FAILED; printf '%s\n' "$out" | head -60; bad=1
elif [ $status -eq 124 ]; then say govulncheck "NOT RUN: its database did not answer within two minutes; known vulnerabilities were not looked for"
else say govulncheck "NOT RUN: $(tail -1 <<<"$out" | cut -c1-200); known vulnerabilities were not looked for"
fi
exit $bad
