"""Messages as they are given: one text, or a line each on standard input."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Final

from foobar_instance.errors import InstanceError, NotVerifiedError, UsageError
from foobar_instance.files import stdin_lines, write_stdout
from foobar_instance.proof import AnyMessage, VerifiedResult, facts
from foobar_instance.terminal import Progress, visible
from foobar_instance.trust import Trust
from foobar_instance.workers import in_order
from foobar_shared.claims import MAX_MESSAGES
from foobar_shared.errors import EnvelopeError, MessageTooLongError, SharedError
from foobar_shared.hpke import MAX_MESSAGE, parse_message

MAX_TEXT: Final = 2 * MAX_MESSAGE
"""Longest text of one message in bytes, with the line breaks that `fold` and mail insert."""


def parse(text: bytes) -> AnyMessage:
    """Return the message of either format in `text`. Spaces and line breaks are ignored.

    Raises:
        NotVerifiedError: it is none.
    """
    try:
        return parse_message(text.decode("ascii", errors="replace"))
    except MessageTooLongError as error:
        raise NotVerifiedError(str(error)) from error
    except EnvelopeError as error:
        raise NotVerifiedError(f"{error}; give what `encrypt` printed") from error


def read_all() -> tuple[AnyMessage, ...]:
    """Return the messages on standard input, a line each, as many as one request holds.

    Raises:
        UsageError: they are more, or none.
        NotVerifiedError: a line holds none; the text names it.
    """
    messages: list[AnyMessage] = []
    for number, line in enumerate(stdin_lines(limit=MAX_MESSAGE), 1):
        if number > MAX_MESSAGES:
            raise UsageError(f"one request holds at most {MAX_MESSAGES} messages: give fewer")
        try:
            messages.append(_parse_line(line))
        except NotVerifiedError as error:
            raise NotVerifiedError(f"line {number}: {error}") from error
    if not messages:
        raise UsageError("standard input holds no message")
    return tuple(messages)


def decrypt_lines(
    decrypt: Callable[[AnyMessage], VerifiedResult],
    trust: Trust,
    progress: Progress,
    *,
    jobs: int,
    as_json: bool,
) -> None:
    """Print a result for each line of standard input, in order; an error where there is none.

    Raises:
        InstanceError: some failed; the text says how many.
    """

    def outcome(numbered: tuple[int, bytes]) -> tuple[str, Exception | None]:
        number, line = numbered
        try:
            verified = decrypt(_parse_line(line))
        except (InstanceError, SharedError) as error:
            fields: dict[str, object] = {"line": number, "error": str(error)}
            return (_compact(fields) if as_json else f"error: {visible(str(error))}"), error
        if as_json:
            return _compact({"line": number, **facts(verified, trust)}), None
        return str(verified.result), None

    lines: Iterable[tuple[int, bytes]] = enumerate(stdin_lines(limit=MAX_MESSAGE), 1)
    done = failed = 0
    unverified = False
    for text, error in in_order(outcome, lines, jobs=jobs):
        write_stdout(text)
        done += 1
        failed += error is not None
        unverified |= isinstance(error, NotVerifiedError)
        progress.tally(f"{done} messages, {failed} failed")
    progress.tally("")
    if failed:
        kind = NotVerifiedError if unverified else InstanceError
        raise kind(f"{failed} of {done} messages failed: the output has an error for each")


def _parse_line(line: bytes) -> AnyMessage:
    if not line.strip():
        raise NotVerifiedError("the line is empty")
    return parse(line)


def _compact(fields: dict[str, object]) -> str:
    return json.dumps(fields, separators=(",", ":"))
