#!/usr/bin/env bash
# Runs every fuzz target of the tree for the given time each. Making an interesting input smaller takes up to a minute by itself if it
# may, and where one run is slow it would take the whole time: ten tries are enough.
set -uo pipefail
cd "$(dirname "$0")/../.."
time=$1 bad=0
while IFS=: read -r file _ line; do
  target=$(sed -E 's/func (Fuzz[A-Za-z0-9_]+).*/\1/' <<<"$line")
  pkg=./$(dirname "$file")
  printf '%s %s\n' "$pkg" "$target"
  go test -run '^$' -fuzz "^$target\$" -fuzztime "$time" -fuzzminimizetime 10x "$pkg" | tail -2 || bad=1
done < <(grep -rnE '^func Fuzz' --include='*_test.go' internal cmd test)
exit $bad
