#!/usr/bin/env bash
# Installs the Debian packages that building and testing need; does nothing when all are there.
#
#   launch/install_deps.sh           install what is missing, as root or through sudo
#   launch/install_deps.sh --check   only say what is missing; exit 1 if anything is
#
# Exit codes: 0 all there; 1 --check found something missing; 64 usage; 69 cannot install (no root, no apt, no network).
set -euo pipefail

packages=(
  g++ cmake ninja-build ccache pkg-config git ca-certificates
  libabsl-dev libprotobuf-dev protobuf-compiler libboost-program-options-dev
  nlohmann-json3-dev libsimdjson-dev libpcre2-dev
  libzstd-dev zlib1g-dev libxxhash-dev libssl-dev zstd
  libgtest-dev libgmock-dev
)

say() { printf 'install_deps: %s\n' "$*"; }
fail() {
  say "$1" >&2
  exit "${2:-69}"
}

check_only=no
for argument in "$@"; do
  case "${argument}" in
    --check) check_only=yes ;;
    -h | --help)
      sed -n '2,7s/^# \{0,1\}//p' "$0"
      exit 0
      ;;
    *) fail "unknown argument '${argument}'; the only one is --check" 64 ;;
  esac
done

command -v dpkg-query > /dev/null || fail "this is no Debian system (no dpkg-query); install by hand: ${packages[*]}"

list_missing() {
  local package
  for package in "${packages[@]}"; do
    # Asked one by one: a name that dpkg has never heard of would fail the whole query.
    if [[ "$(dpkg-query -W -f '${db:Status-Status}' "${package}" 2> /dev/null)" != installed ]]; then
      printf '%s\n' "${package}"
    fi
  done
}

mapfile -t missing < <(list_missing)
if [[ ${#missing[@]} -eq 0 ]]; then
  say "all ${#packages[@]} packages are installed"
  exit 0
fi
say "missing: ${missing[*]}"
[[ "${check_only}" == no ]] || exit 1

as_root=()
if [[ "$(id -u)" -ne 0 ]]; then
  command -v sudo > /dev/null || fail "installing needs root: run as root 'apt-get install ${missing[*]}'"
  as_root=(sudo)
fi

apt() {
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Acquire::Retries=3 "$@"
}
refresh_lists() {
  say "refreshing the package lists (apt-get update)"
  apt update || say "apt-get update failed; trying with the lists there are" >&2
}
install_missing() {
  say "installing with apt-get: ${missing[*]}"
  apt install -y --no-install-recommends "${missing[@]}" < /dev/null
}
# A fresh image carries no lists at all; then no package is known. Asked one by one: one known name hides the others.
lists_know_missing() {
  local package
  for package in "${missing[@]}"; do
    apt-cache show "${package}" > /dev/null 2>&1 || return 1
  done
}

lists_know_missing || refresh_lists
if ! install_missing; then
  # Lists that are old name files which the mirror has dropped.
  say "the first try failed; once more after a refresh" >&2
  refresh_lists
  install_missing || fail "apt-get could not install: ${missing[*]}"
fi

mapfile -t missing < <(list_missing)
[[ ${#missing[@]} -eq 0 ]] || fail "still missing after apt-get: ${missing[*]}"
say "done, all ${#packages[@]} packages are installed"
