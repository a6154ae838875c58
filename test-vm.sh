#!/bin/sh
# Runs the whole job on two virtual machines, parent and enclave, with vsock between them.
#
# As root on Debian or Ubuntu, x86_64. Options: --keep FOLDER keeps the machines and their logs
# there, --cache FOLDER keeps the packages between runs; other arguments go to pytest.
# Exit code: 0 where all is well, 77 where this machine cannot do it, 1 otherwise.
set -eu
cd "$(dirname "$0")"

scripts/pythons >/dev/null || exit 77
scripts/venv .venvs/test requirements/dev.txt
exec .venvs/test/bin/python -m tests.vm "$@"
