#!/bin/sh
# System packages that the tests need, installed when root on a Debian-like machine, otherwise named.
set -eu

need=""
command -v chromium >/dev/null 2>&1 || need="$need chromium"
command -v fc-list >/dev/null 2>&1 && fc-list 2>/dev/null | grep -qi dejavu || need="$need fontconfig fonts-dejavu-core"
PATH="$PATH:/usr/sbin" # where the servers are, which others than root may start as well
command -v nginx >/dev/null 2>&1 || need="$need nginx-light"
command -v caddy >/dev/null 2>&1 || need="$need caddy"
command -v openssl >/dev/null 2>&1 || need="$need openssl"
command -v systemd-analyze >/dev/null 2>&1 || need="$need systemd"

[ -n "$need" ] || exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "Installing system packages:$need"
    export DEBIAN_FRONTEND=noninteractive
    log=$(mktemp)
    # The tests start nginx and Caddy themselves: the services must not take the ports of this machine.
    services=""
    for name in nginx caddy; do case "$need" in *" $name"*) services="$services $name.service" ;; esac; done
    [ -d /run/systemd/system ] && [ -n "$services" ] || services=""
    # shellcheck disable=SC2086
    [ -z "$services" ] || systemctl mask --runtime --quiet $services
    # shellcheck disable=SC2086  # a list of names
    { apt-get update && apt-get install --yes --no-install-recommends $need; } >"$log" 2>&1 || { cat "$log" >&2; exit 1; }
    # shellcheck disable=SC2086
    [ -z "$services" ] || { systemctl unmask --runtime --quiet $services && systemctl disable --quiet $services; }
    rm -f "$log"
else
    echo "The tests need these system packages; please install them and run this again:$need" >&2
    echo "On Debian or Ubuntu: sudo apt-get install$need" >&2
    exit 1
fi
