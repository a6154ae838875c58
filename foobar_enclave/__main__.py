"""`python -m foobar_enclave` is `foobar-enclave`."""

from foobar_enclave.main import main

if __name__ == "__main__":
    main()
