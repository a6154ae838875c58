"""The word count: what it counts, and that it is attested without loss."""

import pytest

from examples.word_count.computation import Result, compute
from foobar_shared.errors import MessageError


def test_counts_words_of_all_messages() -> None:
    result = compute([b"attack at dawn", b"", b" \n", "né à\tParis\n".encode()])
    assert str(result) == "Words: 6"
    assert Result.from_fields(result.fields()) == result


@pytest.mark.parametrize(
    "fields", [{}, {"words": -1}, {"words": 2**32}, {"words": True}, {"words": 1, "x": 1}]
)
def test_other_fields_are_refused(fields: dict[str, object]) -> None:
    with pytest.raises(MessageError):
        Result.from_fields(fields)
