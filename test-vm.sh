#!/bin/sh
# Runs the whole job on two virtual machines, parent and enclave, with vsock between them.
#
# As root on Debian, x86_64. Option: --cache DIRECTORY keeps Debian's packages between runs; other
# arguments go to pytest.
# Exit code: 0 if all tests passed, 77 if this machine lacks something, 1 otherwise.
set -eu
cd "$(dirname "$0")"

scripts/pythons >/dev/null || exit 77
scripts/venv .venvs/test requirements/dev.txt
exec .venvs/test/bin/python -m tests.vm "$@"
