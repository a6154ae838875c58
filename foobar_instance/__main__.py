"""`python -m foobar_instance`."""

from foobar_instance.cli import main

main()
