"""The errors that foobar_shared raises."""


class SharedError(Exception):
    """Base of every error of this package. Its text is fit for a user and holds no secret."""


class AddressError(SharedError):
    """Text that names no address this project can connect to or listen on."""


class MessageError(SharedError):
    """A line that is not a valid message of the wire contract."""


class LineTooLongError(MessageError):
    """A line that is longer than the wire contract allows."""


class NameFormatError(SharedError):
    """A region, account id or role name that AWS would not have issued."""


class EnvelopeError(SharedError):
    """A ciphertext message that is malformed, too large, or does not decrypt."""


class MessageTooLongError(EnvelopeError):
    """A ciphertext message that no request can hold."""


class ComputationError(SharedError):
    """A refusal to compute. Its text goes to the caller: it must not quote or hint at plaintext."""
