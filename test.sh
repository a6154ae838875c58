#!/bin/sh
# Runs every check of this project: style, types, and the test suite with its coverage.
#
# ./test.sh --all-pythons also runs the suite on each other Python of this machine from 3.11 on.
# Other arguments go to pytest: ./test.sh tests/proxy -k half_close
set -eu
cd "$(dirname "$0")"

all=
if [ "${1-}" = --all-pythons ]; then
    all=yes
    shift
fi

scripts/venv .venvs/test requirements/dev.txt
PATH=$PWD/.venvs/test/bin:$PATH

echo "== style and types"
ruff check .
ruff format --check .
mypy

echo "== tests with $(python --version)"
coverage erase
coverage run -m pytest --numprocesses auto --dist loadgroup "$@"
coverage combine --quiet
# Selected tests cover what they cover: the bound is for the whole suite.
[ $# -gt 0 ] || coverage report

if [ -n "$all" ]; then
    scripts/pythons | while read -r version python; do
        case "$(.venvs/test/bin/python --version)" in *" $version".*) continue ;; esac
        scripts/venv ".venvs/test-$version" requirements/dev.txt "$python"
        echo "== tests with Python $version"
        ".venvs/test-$version/bin/python" -m pytest --numprocesses auto --dist loadgroup "$@" </dev/null
    done
fi
echo "== all checks passed"
