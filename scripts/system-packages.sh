#!/bin/sh
# System packages that the tests need, installed when root on a Debian-like machine, otherwise named.
set -eu

need=""
command -v chromium >/dev/null 2>&1 || need="$need chromium"
command -v fc-list >/dev/null 2>&1 && fc-list 2>/dev/null | grep -qi dejavu || need="$need fontconfig fonts-dejavu-core"

[ -n "$need" ] || exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "Installing system packages:$need"
    export DEBIAN_FRONTEND=noninteractive
    log=$(mktemp)
    # shellcheck disable=SC2086  # a list of names
    { apt-get update && apt-get install --yes --no-install-recommends $need; } >"$log" 2>&1 || { cat "$log" >&2; exit 1; }
    rm -f "$log"
else
    echo "The tests need these system packages; please install them and run this again:$need" >&2
    echo "On Debian or Ubuntu: sudo apt-get install$need" >&2
    exit 1
fi
