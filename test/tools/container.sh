#!/usr/bin/env bash
# Builds deploy/Containerfile with podman, and runs what comes of it as an operator would: no root, read-only, its data in a volume.
# Where no registry can be reached, GO_IMAGE names a local image to build with, or `self` makes one of this machine's own Go.
set -euo pipefail
cd "$(dirname "$0")/../.."
command -v podman >/dev/null || { echo "needs podman (Debian: apt-get install podman runc)"; exit 1; }
p=(podman)
podman info >/dev/null 2>&1 || p=(podman --storage-driver=vfs)
[ -f /sys/fs/cgroup/cgroup.controllers ] || p+=(--cgroup-manager=cgroupfs --runtime=runc)
limits=(--ulimit nofile=4096:4096 --ulimit nproc=4096:4096)
dir=$(mktemp -d)
cleanup() { "${p[@]}" rm -f frontdesk-tried >/dev/null 2>&1 || true; "${p[@]}" volume rm -f frontdesk-tried >/dev/null 2>&1 || true; rm -rf "$dir"; }
trap cleanup EXIT

build=(build -q --network=host "${limits[@]}" -f deploy/Containerfile -t frontdesk-tried --build-arg VERSION=tried)
if [ "${GO_IMAGE:-}" = self ]; then
  # The least that the first stage asks for: a shell, mkdir, certificates, a /tmp, and Go.
  go=$(go env GOROOT)
  ldd /bin/sh /bin/mkdir | grep -o '/[^ ]*' | grep -v ':$' | sort -u >"$dir/files"
  printf '%s\n' /bin/sh /bin/mkdir /etc/ssl/certs/ca-certificates.crt >>"$dir/files"
  tar -chf "$dir/root.tar" -T "$dir/files" 2>/dev/null
  tar -rf "$dir/root.tar" --transform "s,^${go#/},usr/local/go," -C / "${go#/}"
  mkdir -m 1777 "$dir/tmp"
  tar -rf "$dir/root.tar" -C "$dir" tmp
  "${p[@]}" import -q -c 'ENV PATH=/usr/local/go/bin:/usr/bin:/bin' -c 'ENV GOTOOLCHAIN=local' "$dir/root.tar" frontdesk-go >/dev/null
  GO_IMAGE=localhost/frontdesk-go
  build+=(-v "$(go env GOMODCACHE):/root/go/pkg/mod" -v "$(go env GOCACHE):/root/.cache/go-build" --env HOME=/root)
  for name in GOPROXY GOSUMDB GONOSUMDB; do build+=(--env "$name=$(go env "$name")"); done
fi
if [ -n "${GO_IMAGE:-}" ]; then
  "${p[@]}" tag "$GO_IMAGE" docker.io/library/golang:1.26
  build+=(--pull=never)
fi
"${p[@]}" "${build[@]}" . >/dev/null
echo "built     $("${p[@]}" images --format '{{.Size}}' frontdesk-tried)"

cat >"$dir/frontdesk.yaml" <<'YAML'
public_url: http://127.0.0.1:18080
egress: {listen: "127.0.0.1:18081"}
ops: {listen: "127.0.0.1:19090"}
YAML
chmod 644 "$dir/frontdesk.yaml"; chmod 755 "$dir"
"${p[@]}" volume create frontdesk-tried >/dev/null
"${p[@]}" run -d --name frontdesk-tried --network=host --read-only --cap-drop=all --security-opt=no-new-privileges "${limits[@]}" \
  -v frontdesk-tried:/data -v "$dir/frontdesk.yaml:/etc/frontdesk/frontdesk.yaml:ro" frontdesk-tried >/dev/null
for _ in $(seq 100); do curl -fs http://127.0.0.1:19090/readyz >/dev/null && break; sleep 0.2; done
curl -fs http://127.0.0.1:19090/readyz >/dev/null || { echo "it is not ready:"; "${p[@]}" logs frontdesk-tried; exit 1; }
curl -fs http://127.0.0.1:18080/.well-known/oauth-authorization-server | grep -q '"issuer":"http://127.0.0.1:18080"' || { echo "it does not answer as its issuer"; exit 1; }
uid=$(awk '/^Uid:/ {print $2}' "/proc/$("${p[@]}" inspect -f '{{.State.Pid}}' frontdesk-tried)/status")
[ "$uid" = 65532 ] || { echo "it runs as $uid, not as 65532"; exit 1; }
"${p[@]}" exec frontdesk-tried /frontdesk --data-dir /data doctor || { echo "doctor, in the container, says no"; exit 1; }
began=$(date +%s)
"${p[@]}" stop -t 30 frontdesk-tried >/dev/null
code=$("${p[@]}" inspect -f '{{.State.ExitCode}}' frontdesk-tried)
[ "$code" = 0 ] || { echo "it ended with $code"; "${p[@]}" logs frontdesk-tried; exit 1; }
echo "ran       as uid $uid, read-only; ended by itself after $(($(date +%s) - began)) s"
