#!/bin/sh
# Builds the enclave image on the parent EC2 instance, writes its measurements for foobar-instance,
# and runs it with the CID that foobar-instance expects.
set -eu
cd "$(dirname "$0")"

name=foobar-enclave
cid=16
memory=512
cpus=2
digest=
debug=
terminate_all=
allocator=${FOOBAR_ALLOCATOR_CONFIG:-/etc/nitro_enclaves/allocator.yaml}
device=${FOOBAR_NITRO_DEVICE:-/dev/nitro_enclaves}

usage() {
    cat <<EOF
Usage: ./build-and-run-enclave.sh [OPTIONS]

Terminates this service's enclave if it runs, builds the image from Dockerfile.enclave, writes
$name.measurements.json, and runs the enclave with CID $cid.

  --memory MIB      memory of the enclave (default $memory, the allocator's own default)
  --cpu-count N     processors of the enclave (default $cpus, the allocator's own default)
  --python-digest sha256:HEX
                    build on this very base image, and not on what its tag names today: what a
                    published PCR0 was built on
  --debug           run in debug mode and attach to the console: PCR0 to PCR2 are zero, so
                    that create-key refuses it; for finding mistakes only
  --terminate-all   terminate every enclave of this instance first, not only this service's
  -h, --help        show this text
EOF
}

fail() {
    echo "error: $*" >&2
    exit 1
}

misused() {
    echo "error: $* (see --help)" >&2
    exit 2
}

number() {
    case $2 in
    '' | *[!0-9]* | 0*) misused "$1 takes a whole number, not '$2'" ;;
    esac
}

parse_options() {
    while [ $# -gt 0 ]; do
        case $1 in
        --memory | --cpu-count)
            [ $# -ge 2 ] || misused "$1 takes a value"
            number "$1" "$2"
            if [ "$1" = --memory ]; then memory=$2; else cpus=$2; fi
            shift
            ;;
        --python-digest)
            [ $# -ge 2 ] || misused "$1 takes a value"
            printf '%s\n' "$2" | grep -Eqx 'sha256:[0-9a-f]{64}' ||
                misused "$1 takes sha256: and 64 hexadecimal digits, not '$2'"
            digest=$2
            shift
            ;;
        --debug) debug=yes ;;
        --terminate-all) terminate_all=yes ;;
        -h | --help)
            usage
            exit 0
            ;;
        *) misused "unknown option '$1'" ;;
        esac
        shift
    done
}

# What the allocator sets aside, by its configuration file; empty where it does not say.
allocated() {
    sed -n "s/^[[:space:]]*$1:[[:space:]]*\([0-9][0-9]*\).*/\1/p" "$allocator" | tail -n 1
}

check_allocator() {
    [ -r "$allocator" ] ||
        fail "no $allocator: install aws-nitro-enclaves-cli, and start nitro-enclaves-allocator"
    available=$(allocated memory_mib)
    [ "${available:-0}" -ge "$memory" ] ||
        fail "the allocator sets aside ${available:-no} MiB and the enclave takes $memory: raise" \
            "memory_mib in $allocator, then: sudo systemctl restart nitro-enclaves-allocator"
    available=$(allocated cpu_count)
    [ "${available:-0}" -ge "$cpus" ] ||
        fail "the allocator sets aside ${available:-no} processors and the enclave takes $cpus:" \
            "raise cpu_count in $allocator, then: sudo systemctl restart nitro-enclaves-allocator"
}

check_machine() {
    command -v nitro-cli >/dev/null ||
        fail "nitro-cli is missing: sudo dnf install aws-nitro-enclaves-cli aws-nitro-enclaves-cli-devel"
    command -v docker >/dev/null || fail "docker is missing: sudo dnf install docker"
    docker info >/dev/null 2>&1 ||
        fail "docker does not answer: sudo systemctl start docker, and be in the group docker"
    [ -e "$device" ] ||
        fail "no $device: this must be an EC2 instance with enclaves enabled (EnclaveOptions)," \
            "and the allocator must run: sudo systemctl start nitro-enclaves-allocator"
    check_allocator
}

terminate() {
    if [ -n "$terminate_all" ]; then
        nitro-cli terminate-enclave --all
    elif nitro-cli describe-enclaves | grep -q "\"EnclaveName\": *\"$name\""; then
        nitro-cli terminate-enclave --enclave-name "$name"
    fi
}

build() {
    docker build --file Dockerfile.enclave --tag "$name" --build-arg "PYTHON_DIGEST=$digest" .
    nitro-cli build-enclave --docker-uri "$name" --output-file "$name.eif" >"$work/measurements"
    cat "$work/measurements"
    grep -q '"PCR0"' "$work/measurements" || fail "nitro-cli build-enclave printed no PCR0"
    # Written beside its place and renamed: foobar-instance never reads a part of it.
    cp "$work/measurements" ".$name.measurements.new"
    mv ".$name.measurements.new" "$name.measurements.json"
}

# nitro-cli refuses an enclave with less than four times its image (E26).
check_memory() {
    bytes=$(wc -c <"$name.eif")
    needed=$(((bytes * 4 + 1048575) / 1048576))
    [ "$memory" -ge "$needed" ] ||
        fail "the image needs $needed MiB of memory (four times its size), not $memory: give" \
            "--memory $needed, and let the allocator set aside as much"
}

start() {
    set -- --eif-path "$name.eif" --enclave-name "$name" --enclave-cid "$cid" \
        --memory "$memory" --cpu-count "$cpus"
    [ -z "$debug" ] || set -- "$@" --debug-mode
    nitro-cli run-enclave "$@"
    nitro-cli describe-enclaves
    if [ -n "$debug" ]; then
        echo "warning: debug mode: the running enclave's PCR0 to PCR2 are zero, whatever" \
            "$name.measurements.json says; it attests nothing and makes no key" >&2
        nitro-cli console --enclave-name "$name"
    else
        echo "The enclave runs. Next: sudo foobar-instance create-key" >&2
    fi
}

parse_options "$@"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
check_machine
terminate
build
check_memory
start
