"""Starts the emulated enclave inside the image's file tree, for `tests/image/run`.

It is copied there beside the emulator's modules for the enclave's side. The service and all that it
imports are the image's own. At the end it names on standard error each module that was not found.
"""

import atexit
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType


class Missing:
    """The last finder: it is asked for what no other has found."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def find_spec(
        self, name: str, _path: Sequence[str] | None, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        self.names.add(name)
        return None

    def report(self) -> None:
        for name in sorted(self.names):
            sys.stderr.write(f"missing-module={name}\n")


if __name__ == "__main__":
    missing = Missing()
    sys.meta_path.append(missing)
    atexit.register(missing.report)

    from emulator.enclave import main
    from foobar_enclave.kms import AMAZON_ROOTS, tls_context

    # The emulator's KMS is under another root; in production it is these that are loaded.
    sys.stderr.write(f"amazon-roots={len(tls_context(AMAZON_ROOTS).get_ca_certs())}\n")
    main()
