import os

from tests.vm.lab import VARIABLE

# The scenario needs machines, which python -m tests.vm builds.
collect_ignore = [] if os.environ.get(VARIABLE) else ["scenario"]
