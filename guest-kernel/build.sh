#!/usr/bin/env bash
# Builds kernels from one source and puts each at target/NAME/vmlinux, from a cache where its inputs have not changed.
#   build.sh [NAME...]                  guest (the default), nested or lab
#   build.sh --reproducible [NAME...]   builds each once more in another folder and compares with the cache's
# STOCKADE_KERNEL_TARBALL and STOCKADE_KERNEL_SHA256 name another source; README.md tells the rest.
set -euo pipefail

# Debian's linux-source-6.12, and the date that the kernel says it was built: the package's.
package_version=6.12.117-1~deb12u1
build_timestamp='Sat Nov 14 12:56:00 UTC 2026'
tarball=${STOCKADE_KERNEL_TARBALL:-/usr/src/linux-source-6.12.tar.xz}
sha256=585a4a074597aefa2b1a68ada83a3184ba351c127544dea80618bbcceaa3961f

# The configuration of each kernel: a later file's line replaces an earlier one's.
declare -A configurations=(
    [guest]='kernel.config security.config'
    [nested]='kernel.config security.config nested.config'
    [lab]='kernel.config nested.config lab.config'
)

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/stockade/kernel
export LC_ALL=C

fail() {
    echo "guest-kernel: $*" >&2
    exit 1
}

check_packages() {
    local missing=() need
    for need in bc bison flex gcc make tar xz:xz-utils ld:binutils; do
        [ -n "$(type -P "${need%:*}")" ] || missing+=("${need#*:}")
    done
    [ -f /usr/include/gelf.h ] || missing+=(libelf-dev)
    [ -f /usr/include/stdlib.h ] || missing+=(libc6-dev)
    [ -f "$tarball" ] || [ -n "${STOCKADE_KERNEL_TARBALL-}" ] || missing+=(linux-source-6.12)
    [ ${#missing[@]} -eq 0 ] || fail "missing packages: ${missing[*]}"
}

check_source() {
    [ -f "$tarball" ] || fail "no kernel source at $tarball"
    echo "$sha256  $tarball" | sha256sum --check --status ||
        fail "$tarball is not the pinned source (Debian's $package_version): see guest-kernel/README.md, \"The pin\""
}

# The configuration of kernel NAME without comments.
configuration_of() {
    local files
    read -ra files <<< "${configurations[$1]}"
    cat "${files[@]/#/$here/}" | grep -E '^(CONFIG_|# CONFIG_.* is not set$)' | tac |
        awk '{ symbol = $1 == "#" ? $2 : $1; sub(/=.*/, "", symbol) } !seen[symbol]++' | tac
}

# check_config WANTED RESOLVED: every wanted line has to hold after the dependencies were resolved.
check_config() {
    local line symbol broken=()
    while read -r line; do
        case $line in
        'CONFIG_'*) grep -qxF "$line" "$2" || broken+=("$line") ;;
        *)
            symbol=${line#\# } symbol=${symbol%% *}
            ! grep -q "^$symbol=" "$2" || broken+=("$symbol=n")
            ;;
        esac
    done < "$1"
    [ ${#broken[@]} -eq 0 ] || fail "the configuration lost, for want of what they depend on: ${broken[*]}"
}

# amend FILE SCRIPT: changes a file of the source, all of whose changes have to find their place.
amend() {
    local wanted changed
    sed -f "$2" "$1" > "$1.new"
    wanted=$(grep -c '^/.*[ia]\\$' "$2")
    changed=$(diff "$1" "$1.new" | grep -c '^[0-9]') || true
    [ "$changed" = "$wanted" ] || fail "${2##*/} changes ${1##*/} in $changed places, and not in $wanted: see guest-kernel/README.md"
    mv "$1.new" "$1"
}

# build_in DIR NAME: leaves DIR/vmlinux and DIR/config.
build_in() {
    local tree=$1/tree make=(
        nice make -j "$(nproc)" KBUILD_BUILD_USER=stockade KBUILD_BUILD_HOST=stockade KBUILD_BUILD_VERSION=1
        KBUILD_BUILD_TIMESTAMP="$build_timestamp"
    )
    check_packages
    check_source
    mkdir -p "$tree"
    echo "guest-kernel: unpacking the source"
    tar -x -f "$tarball" -C "$tree" --strip-components=1
    configuration_of "$2" > "$1/kernel.config"
    [ ! -f "$here/$2.sed" ] || amend "$tree/arch/x86/kvm/svm/svm.c" "$here/$2.sed"
    (
        # The build sees relative paths only, and nothing of the caller's make.
        unset MAKEFLAGS MFLAGS MAKELEVEL
        cd "$tree"
        "${make[@]}" KCONFIG_ALLCONFIG=../kernel.config allnoconfig > ../log 2>&1
        check_config ../kernel.config .config
        echo "guest-kernel: compiling the kernel '$2', about six minutes on two cores"
        "${make[@]}" vmlinux 2>&1 | tee -a ../log |
            awk 'NR % 250 == 0 { print "guest-kernel: " NR " of about 2000 steps"; fflush() }'
    ) || {
        tail -n 20 "$1/log" >&2
        fail "the build failed; its last lines are above"
    }
    strip --strip-all -o "$1/vmlinux" "$tree/vmlinux"
    cp "$tree/.config" "$1/config"
    cp "$tree/System.map" "$1/System.map"
    rm -rf "$tree"
}

# One build at a time; who waited finds it in the cache. What a killed build left behind goes.
lock_cache() {
    exec {lock}> "$cache/lock"
    flock "$lock"
    rm -rf "$cache"/build.*
    work=$(mktemp -d "$cache/build.XXXXXX")
}

# build NAME: leaves target/NAME/vmlinux.
build() {
    local inputs entry output=${here%/*}/target/$1/vmlinux
    inputs=$({ echo "$sha256 $tools"; configuration_of "$1"; cat "${BASH_SOURCE[0]}"; [ ! -f "$here/$1.sed" ] || cat "$here/$1.sed"; } | sha256sum)
    entry=$cache/${inputs%% *}
    mkdir -p "${output%/*}"
    if [ ! -d "$entry" ]; then
        [ -n "$work" ] || lock_cache
        if [ ! -d "$entry" ]; then
            build_in "$work/$1" "$1"
            mv -T "$work/$1" "$entry"
        fi
    fi
    if ! cmp -s "$entry/vmlinux" "$output"; then
        # Running VMs map the file that is there: never write into it.
        cp "$entry/vmlinux" "$output.new"
        mv "$output.new" "$output"
    fi
    [ -n "$reproducible" ] || return 0
    [ -n "$work" ] || lock_cache
    build_in "$work/another/$1" "$1"
    cmp "$work/another/$1/vmlinux" "$entry/vmlinux" || fail "two builds of the same inputs differ"
    echo "guest-kernel: two builds of '$1' in different folders are the same, sha256 $(sha256sum < "$entry/vmlinux")"
}

reproducible='' names=()
for argument; do
    case $argument in
    --reproducible) reproducible=1 ;;
    *)
        [ -n "${configurations[$argument]-}" ] || fail "no kernel is named '$argument': there are ${!configurations[*]}"
        names+=("$argument")
        ;;
    esac
done
[ ${#names[@]} -gt 0 ] || names=(guest)
if [ -n "${STOCKADE_KERNEL_TARBALL-}" ]; then
    sha256=${STOCKADE_KERNEL_SHA256:?"is the checksum that $tarball must have: see guest-kernel/README.md"}
fi

tools=$(gcc --version && ld --version) || check_packages
mkdir -p "$cache"
work=
trap '[ -z "$work" ] || rm -rf "$work"' EXIT
for name in "${names[@]}"; do
    build "$name"
done
