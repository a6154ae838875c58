#!/bin/sh
# Shows the whole job on a machine without AWS. The programs are the real ones; the emulator plays
# Nitro, KMS and instance metadata. Sets up all that it needs, and leaves nothing running.
set -eu
cd "$(dirname "$0")"

scripts/venv .venvs/runtime requirements/runtime.txt
PATH=$PWD/.venvs/runtime/bin:$PATH

work=$(mktemp -d)
emulator=
finish() {
    [ -z "$emulator" ] || { kill "$emulator" && wait "$emulator"; } 2>/dev/null || true
    rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

run() {
    echo "\$ $*"
    "$@"
}

echo "Starting the emulated Nitro enclave, KMS and instance metadata ..."
python -m emulator up --directory "$work/emulator" >"$work/emulator.log" 2>&1 &
emulator=$!
until python -m emulator env --directory "$work/emulator" >"$work/env" 2>/dev/null; do
    if ! kill -0 "$emulator" 2>/dev/null; then
        cat "$work/emulator.log" >&2
        exit 1
    fi
    sleep 0.2
done
# shellcheck source=/dev/null
. "$work/env"
cd "$work"

echo
echo "1. The enclave asks KMS for a key that only this very enclave image can use."
run foobar-instance create-key
echo
echo "2. Whoever trusts that image encrypts to the attested key. No network, no AWS account."
message="attack at dawn"
echo "\$ CIPHERTEXT=\$(foobar-instance encrypt --plaintext \"$message\")"
CIPHERTEXT=$(foobar-instance encrypt --plaintext "$message")
echo
echo "3. The enclave decrypts it and attests what it computed, and nothing else."
echo "\$ foobar-instance decrypt --ciphertext \$CIPHERTEXT --proof result.json"
foobar-instance decrypt --ciphertext "$CIPHERTEXT" --proof result.json
echo
echo "4. A third person verifies the result: offline, without the plaintext, trusting one PCR0."
echo "\$ foobar-instance verify --proof result.json --ciphertext \$CIPHERTEXT"
foobar-instance verify --proof result.json --ciphertext "$CIPHERTEXT"

echo
echo "5. Many messages: each line is sealed, decrypted and attested on its own."
printf 'attack at dawn\nretreat\nhold the line\n' >messages
echo "\$ foobar-instance encrypt -q --lines --plaintext - < messages > sealed"
foobar-instance encrypt -q --lines --plaintext - <messages >sealed
echo "\$ foobar-instance decrypt -q --lines --ciphertext - < sealed"
foobar-instance decrypt -q --lines --ciphertext - <sealed
echo
echo "6. Or one result over all of them, in one attestation."
echo "\$ foobar-instance decrypt -q --together --proof all.json --ciphertext - < sealed"
foobar-instance decrypt -q --together --proof all.json --ciphertext - <sealed
echo "\$ foobar-instance verify -q --proof all.json --lines --ciphertext - < sealed"
foobar-instance verify -q --proof all.json --lines --ciphertext - <sealed
