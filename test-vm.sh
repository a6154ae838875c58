#!/bin/sh
# Shows the whole job on two virtual machines, parent and enclave, with vsock between them.
#
# As root on Debian or Ubuntu, x86_64. Options: --keep FOLDER keeps the machines and their logs
# there, --cache FOLDER keeps the packages between runs; other arguments go to pytest.
# Exit code: 0 where all is well, 77 where this machine cannot do it, 1 otherwise.
set -eu
cd "$(dirname "$0")"

first=$(scripts/pythons | head -n 1)
if [ -z "$first" ]; then
    echo "test-vm.sh: needs Python 3.11, 3.12 or 3.13 (Debian and Ubuntu: apt-get install python3)" >&2
    exit 77
fi
folder=.venvs/test-${first%% *}
scripts/venv "$folder" requirements/dev.txt "${first#* }"
exec "$folder/bin/python" -m tests.vm "$@"
