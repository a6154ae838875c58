"""Every time-out of the enclave and its peers, in seconds, and how they must relate.

A program that waits for another must wait longer than the other may take. The assertions at the
end say which waits for which.
"""

from typing import Final

# The enclave's KMS client: one create-key request is one exchange of two calls.
RELAY_CONNECT: Final = 10.0  # from the enclave to the relay
KMS_EXCHANGE: Final = 75.0  # for both calls together, however slowly the relay hands over bytes

# The enclave's server.
REQUEST_IDLE: Final = 60.0  # until a line must begin
REQUEST_LINE: Final = 10.0  # from a line's first byte to its last
ANSWER_WRITE: Final = 10.0  # until the peer must have taken an answer
SERVER_STOP: Final = 5.0  # for requests that are being answered when the server is told to stop

# The command line's connection to the enclave.
ENCLAVE_CONNECT: Final = 5.0
ENCLAVE_SEND: Final = 10.0
ENCLAVE_ANSWER: Final = 90.0  # until an answer must begin; createKey is the slowest request
ENCLAVE_LINE: Final = 10.0

# The command line's own calls: KMS's DeriveSharedSecret, and instance metadata.
DERIVE_CONNECT: Final = 5.0
DERIVE_READ: Final = 10.0
DERIVE_ATTEMPTS: Final = 3
METADATA: Final = 2.0

# The relay.
RELAY_TARGET_CONNECT: Final = 10.0
RELAY_IDLE: Final = 300.0  # until a connection over which no byte goes is closed

# The command line hears the enclave's own reason for a failure, not its own time-out. The last
# connection to the relay may begin just before the exchange must end.
assert KMS_EXCHANGE + RELAY_CONNECT < ENCLAVE_ANSWER  # noqa: S101
# The enclave is still there when KMS's answer comes to the command line.
assert DERIVE_ATTEMPTS * (DERIVE_CONNECT + DERIVE_READ) < REQUEST_IDLE  # noqa: S101
# The relay does not close a connection that the enclave still waits on.
assert KMS_EXCHANGE < RELAY_IDLE  # noqa: S101
# Of a line that goes too slowly the enclave is the first to give up, and its log says so.
assert REQUEST_LINE <= ENCLAVE_SEND  # noqa: S101
assert ANSWER_WRITE <= ENCLAVE_LINE  # noqa: S101
