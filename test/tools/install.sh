#!/usr/bin/env bash
# Installs what the tests need beside Go. On Debian as root it does so by itself; elsewhere it says what is missing.
# Nothing here is needed to run Frontdesk, or `make demo`.
set -uo pipefail
cd "$(dirname "$0")"

have() { type -P "$1" >/dev/null; } # not command -v: that finds the functions below too
postgres() { ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || have initdb; }
chromium() { have chromium || have chromium-browser || have google-chrome; }

missing=()
have gcc || missing+=(gcc libc6-dev)
postgres || missing+=(postgresql)
chromium || missing+=(chromium)
have npm || missing+=(npm)

if [ ${#missing[@]} -gt 0 ]; then
  if have apt-get && [ "$(id -u)" = 0 ]; then
    echo "installing ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq >/dev/null && apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null ||
      echo "apt-get could not install ${missing[*]}; the tests that need them will say so"
  else
    echo "missing on this machine: ${missing[*]}"
    echo "  install them with your package manager; tests that need them are skipped with a word until then (in CI they fail)"
  fi
fi

# Node 22 and the JavaScript parts (an OAuth provider, clients, axe, the conformance suite), pinned by lock files.
for dir in . ../world/oidcprovider; do
  have npm && [ -f "$dir/package-lock.json" ] || continue
  if [ ! -f "$dir/node_modules/.stamp" ] || [ "$dir/package-lock.json" -nt "$dir/node_modules/.stamp" ]; then
    (cd "$dir" && npm ci --no-audit --no-fund --loglevel=error && touch node_modules/.stamp) ||
      echo "npm could not fetch what $dir/package-lock.json names; the tests that need it will say so"
  fi
done
exit 0
