#!/bin/sh
# Runs every check of this project: style, types, and the test suite on each supported Python that
# this machine has. Arguments go to pytest: ./test.sh tests/proxy -k half_close
set -eu
cd "$(dirname "$0")"

pythons=$(scripts/pythons)
if [ -z "$pythons" ]; then
    echo "test.sh: needs Python 3.11, 3.12 or 3.13 (Debian and Ubuntu: apt-get install python3)" >&2
    exit 1
fi

primary= primary_python=
while read -r version python; do
    folder=.venvs/test-$version
    scripts/venv "$folder" requirements/dev.txt "$python"
    bin=$PWD/$folder/bin
    if [ -z "$primary" ]; then
        primary=$bin primary_python=$python
        echo "== style and types (Python $version)"
        "$bin/ruff" check .
        "$bin/ruff" format --check .
        "$bin/mypy"
        echo "== tests with branch coverage (Python $version)"
        "$bin/coverage" erase
        "$bin/coverage" run -m pytest "$@"
        "$bin/coverage" combine --quiet
    else
        echo "== tests (Python $version)"
        "$bin/python" -m pytest "$@"
    fi
done <<EOF
$pythons
EOF

# Nobody needs AWS-LC, so that all the rest is tested without it.
if [ $# -eq 0 ]; then
    echo "== tests of verification with AWS-LC"
    scripts/venv .venvs/fast requirements/fast.txt "$primary_python"
    .venvs/fast/bin/python -m pytest tests/foobar_instance/attestation
fi

# Selected tests cover what they cover; the bound is for the whole suite.
if [ $# -eq 0 ]; then
    echo "== coverage"
    "$primary/coverage" report
fi
echo "== all checks passed"
