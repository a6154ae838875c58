"""The errors that the emulator raises towards its user; KMS's own refusals are in kms_fault.py."""


class EmulatorError(Exception):
    """Base of every error of this package. Its text is fit for a user and holds no secret."""


class StateDirectoryError(EmulatorError):
    """A state directory that cannot be used: not ours, not private, or in use."""


class NotUpError(EmulatorError):
    """No emulator is up in the state directory that was named."""


class EnclaveFailedError(EmulatorError):
    """An emulated enclave that did not start, or ended by itself."""
