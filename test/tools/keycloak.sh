#!/usr/bin/env bash
# Keycloak (Maven Central) in a directory that is thrown away, and the tests that sign in at it, exchange tokens at it and hear from it.
# KEYCLOAK_ZIP names a distribution that is here already; then nothing is fetched.
set -euo pipefail
cd "$(dirname "$0")/../.."
VERSION=26.7.3
dir=$(mktemp -d)
end() {
  if [ -n "${pid:-}" ]; then kill "$pid" 2>/dev/null || true; wait "$pid" 2>/dev/null || true; fi
  rm -rf "$dir"
}
trap end EXIT
missing() { echo "needs $1" >&2; exit 1; }

command -v unzip >/dev/null || missing "unzip"
java=
for home in ${JAVA_HOME:+"$JAVA_HOME"} /usr/lib/jvm/*; do
  [ -x "$home/bin/java" ] || continue
  major=$("$home/bin/java" -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p' | head -1)
  if [ "${major:-0}" -ge 21 ]; then java=$home; break; fi
done
[ -n "$java" ] || missing "Java 21 or later: none in JAVA_HOME or under /usr/lib/jvm (Debian: apt-get install openjdk-21-jre-headless)"

zip=${KEYCLOAK_ZIP:-}
if [ -z "$zip" ]; then
  command -v mvn >/dev/null || missing "Maven, to fetch Keycloak from Maven Central (Debian: apt-get install maven), or KEYCLOAK_ZIP=keycloak-$VERSION.zip"
  mvn -q dependency:copy "-Dartifact=org.keycloak:keycloak-quarkus-dist:$VERSION:zip" "-DoutputDirectory=$dir" ||
    missing "Maven Central, or KEYCLOAK_ZIP=keycloak-$VERSION.zip"
  zip=$dir/keycloak-quarkus-dist-$VERSION.zip
fi
unzip -q "$zip" -d "$dir"

for port in $(seq 8180 8279); do (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || break; done
url=http://127.0.0.1:$port
# What the tests hear is pushed to loopback, and soon.
JAVA_HOME=$java KC_BOOTSTRAP_ADMIN_USERNAME=admin KC_BOOTSTRAP_ADMIN_PASSWORD=admin "$dir"/keycloak-*/bin/kc.sh start-dev \
  --http-host=127.0.0.1 "--http-port=$port" --features=identity-assertion-jwt,ssf,token-exchange-standard \
  --spi-ssf-transmitter--default--allow-insecure-push-targets=true --spi-ssf-transmitter--default--outbox-drainer-interval=1s >"$dir/log" 2>&1 &
pid=$!
until curl -fs "$url/realms/master" >/dev/null 2>&1; do # some 15 seconds, on a busy machine two minutes
  [ "$SECONDS" -lt 300 ] || { tail -20 "$dir/log" >&2; echo "Keycloak is not ready after 5 minutes" >&2; exit 1; }
  kill -0 "$pid" 2>/dev/null || { tail -20 "$dir/log" >&2; echo "Keycloak did not start" >&2; exit 1; }
  sleep 0.2
done
KEYCLOAK_URL=$url go test -count=1 -tags keycloak -timeout 15m -v ./test/keycloak
