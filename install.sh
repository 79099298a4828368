#!/usr/bin/env bash
# Usage: sudo ./install.sh [--uninstall [--purge]]
#
# Install Hero from this directory on Debian 12, Ubuntu 24.04 or newer: packages, a virtual
# environment under /opt/hero, `hero` on the PATH, systemd units. Run it again to update; it leaves
# settings and state alone, and starts nothing. --uninstall removes what it installed, and with
# --purge the state in /var/lib/hero as well, VMs included.
set -euo pipefail

readonly PREFIX=/opt/hero
readonly STATE=/var/lib/hero
readonly UNITS=/etc/systemd/system
readonly COMMAND=/usr/local/bin/hero
readonly SERVICES=(hero-router hero-compute hero-explorer hero-ui)
readonly ACCOUNT=hero
readonly MARK="# Installed by Hero's install.sh"

SOURCE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

main() {
    local uninstall=no purge=no
    for argument in "$@"; do
        case $argument in
            --uninstall) uninstall=yes ;;
            --purge) purge=yes ;;
            -h | --help) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"; exit 0 ;;
            *) fail "unknown option $argument; --help lists them" 2 ;;
        esac
    done
    [ "$purge$uninstall" != yesno ] || fail "--purge goes with --uninstall" 2
    [ "$(id -u)" -eq 0 ] || fail "this needs root: sudo $0 $*"
    if [ "$uninstall" = yes ]; then
        remove "$purge"
    else
        install_everything
    fi
}

fail() {
    echo "install.sh: $1" >&2
    exit "${2:-1}"
}

say() { echo "==> $1"; }

with_systemd() { [ -d /run/systemd/system ]; }

install_everything() {
    install_packages
    make_account
    make_environment
    install_command
    install_units
    cat <<TXT

Hero is installed. Nothing is running yet. For this machine alone:

    sudo systemctl enable --now hero.target
    sudo hero status

To make it a worker of a cluster, before anything has been started here:

    sudo hero join --no-start TOKEN
    sudo systemctl enable --now hero.target
TXT
}

install_packages() {
    local missing=() package
    command -v apt-get >/dev/null || fail "this is for Debian and Ubuntu: there is no apt-get here"
    for package in python3 python3-venv qemu-system-x86 qemu-utils zstd; do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] ||
            missing+=("$package")
    done
    if [ ${#missing[@]} -gt 0 ]; then
        say "Installing ${missing[*]}"
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive \
            apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
    fi
    /usr/bin/python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        fail "Hero needs Python 3.11 or newer; this system has $(/usr/bin/python3 --version)"
}

make_account() {
    if ! getent passwd "$ACCOUNT" >/dev/null; then
        say "Making the system account $ACCOUNT"
        useradd --system --user-group --home-dir "$STATE" --no-create-home \
            --shell /usr/sbin/nologin "$ACCOUNT"
    fi
    if getent group kvm >/dev/null; then
        usermod --append --groups kvm "$ACCOUNT"
    fi
    install -d -m 0700 -o "$ACCOUNT" -g "$ACCOUNT" "$STATE" "$STATE/cfg"
    if [ ! -e "$STATE/cfg/hero.env" ]; then
        printf 'HERO_SOCKET_DIR=/run/hero\n' |
            install -m 0600 -o "$ACCOUNT" -g "$ACCOUNT" /dev/stdin "$STATE/cfg/hero.env"
    fi
}

make_environment() {
    if ! "$PREFIX/bin/python" -m pip --version >/dev/null 2>&1; then
        say "Making a virtual environment in $PREFIX"
        /usr/bin/python3 -m venv --clear "$PREFIX"
    fi
    say "Installing Hero in $PREFIX"
    # A copy: building in place would leave root's files in somebody's checkout.
    build=$(mktemp -d)
    trap 'rm -rf "$build"' EXIT
    (cd "$SOURCE" && cp -r hero twisted setup.cfg pyproject.toml README.md LICENSE "$build/")
    find "$build" \( -name __pycache__ -o -name dropin.cache \) -prune -exec rm -rf {} +
    local pip=("$PREFIX/bin/python" -m pip --quiet --disable-pip-version-check)
    "${pip[@]}" wheel --no-deps --wheel-dir "$build" "$build"
    "${pip[@]}" install "$build"/hero-*.whl
    # The version may be the same and the code another.
    "${pip[@]}" install --force-reinstall --no-deps "$build"/hero-*.whl
    # Twisted keeps a list of plugins, which only root can write here.
    "$PREFIX/bin/python" -c 'import twisted.plugin as p; list(p.getPlugins(p.IPlugin))'
}

install_command() {
    install -m 0755 /dev/stdin "$COMMAND" <<TXT
#!/bin/sh
$MARK
# root speaks for the node that systemd runs; others for a node of their own, or by --url.
if [ -z "\${HERO_HOME:-}" ]; then
    case \$(id -un) in
        root) exec runuser -u $ACCOUNT -- env HOME=$STATE HERO_HOME=$STATE $PREFIX/bin/hero "\$@" ;;
        $ACCOUNT) export HERO_HOME=$STATE ;;
    esac
fi
exec $PREFIX/bin/hero "\$@"
TXT
}

install_units() {
    local unit
    install -d -m 0755 "$UNITS"
    for unit in hero.target "${SERVICES[@]/%/.service}"; do
        install -m 0644 "$SOURCE/packaging/systemd/$unit" "$UNITS/$unit"
    done
    if with_systemd; then
        systemctl daemon-reload
        # After an update: restart what runs. Guests go on.
        systemctl try-restart "${SERVICES[@]/%/.service}"
    fi
}

remove() {
    local purge=$1 service
    say "Removing Hero"
    if with_systemd; then
        systemctl disable --now hero.target "${SERVICES[@]/%/.service}" 2>/dev/null || true
    fi
    for service in "${SERVICES[@]}"; do
        rm -f "$UNITS/$service.service"
    done
    rm -f "$UNITS/hero.target"
    if with_systemd; then
        systemctl daemon-reload
    fi
    if grep -qsF "$MARK" "$COMMAND"; then
        rm -f "$COMMAND"
    fi
    rm -rf "$PREFIX"
    if [ "$purge" = yes ]; then
        if getent passwd "$ACCOUNT" >/dev/null; then
            # -1 is every process that the account may signal; a minimal system has no pkill.
            runuser -u "$ACCOUNT" -- /bin/sh -c 'kill -KILL -1' || true
            userdel "$ACCOUNT" 2>/dev/null || true
        fi
        rm -rf "$STATE" /run/hero
        echo "Hero, its state and its VMs are gone."
    else
        echo "Hero is gone."
        [ ! -d "$STATE" ] ||
            echo "$STATE is left; VMs that were running still do. --purge removes both."
    fi
}

main "$@"
