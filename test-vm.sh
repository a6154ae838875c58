#!/bin/sh
# Shows the whole job on two virtual machines, parent and enclave, with vsock between them.
#
# As root on Debian, x86_64. Option: --cache DIRECTORY keeps Debian's packages between runs; other
# arguments go to pytest.
# Exit code: 0 if all tests passed, 77 if this machine lacks something, 1 otherwise.
set -eu
cd "$(dirname "$0")"

first=$(scripts/pythons | head -n 1)
if [ -z "$first" ]; then
    echo "test-vm.sh: needs Python 3.11, 3.12 or 3.13 (Debian and Ubuntu: apt-get install python3)" >&2
    exit 77
fi
directory=.venvs/test-${first%% *}
scripts/venv "$directory" requirements/dev.txt "${first#* }"
exec "$directory/bin/python" -m tests.vm "$@"
