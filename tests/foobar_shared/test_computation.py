"""What the service computes, and that it is attested without loss."""

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foobar_shared.claims import ResultClaims
from foobar_shared.computation import NAME, SUMMARY, Result, compute
from foobar_shared.encoding import parse_json_object, to_json
from foobar_shared.errors import MessageError

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("plaintexts", "count"),
    [
        ([b""], 0),
        ([b"attack at dawn"], 4),
        ([b"A\xc3\xa1 a\xff\0a"], 2),  # bytes, whatever they encode
        ([b"banana", b"", b"cat"], 4),
    ],
)
def test_counts_letters_of_all_messages(plaintexts: list[bytes], count: int) -> None:
    assert compute(plaintexts) == Result(count)


def test_what_people_read() -> None:
    assert str(compute([b"attack at dawn"])) == "Count 'a': 4"
    assert NAME == "foobar/count-a/1"
    assert f"Have the enclave decrypt messages and {SUMMARY}." == (
        "Have the enclave decrypt messages and count their letters 'a'."
    )


@given(st.lists(st.binary(), min_size=1))
def test_attested_without_loss(plaintexts: list[bytes]) -> None:
    result = compute(plaintexts)
    assert Result.from_fields(parse_json_object(to_json(result.fields()))) == result


def test_the_original_s_field() -> None:
    assert Result(4).fields() == {"count": 4}
    attested = ResultClaims(bytes(32), Result(4)).encode()
    assert attested.endswith(b'"count":4,"type":"foobar/decrypt/1"}')


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"count": -1},
        {"count": 2**32},
        {"count": True},
        {"count": 4.0},
        {"count": "4"},
        {"count": None},
        {"count": 4, "more": 1},
    ],
)
def test_other_fields_are_refused(fields: dict[str, object]) -> None:
    with pytest.raises(MessageError, match="not a count"):
        Result.from_fields(fields)


def test_imports_nothing_but_the_standard_library() -> None:
    program = (
        "import sys, foobar_shared.computation\n"
        "names = {name.partition('.')[0] for name in sys.modules}\n"
        "print(*sorted(names - sys.stdlib_module_names - {'__main__', 'foobar_shared'}))"
    )
    command = [sys.executable, "-S", "-c", program]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.split() == []
