"""Write docs/command-line.md with what programs print now: `python -m tests.docs.refresh`."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/command-line.md"
SESSION = re.compile(r"^```console\n\$ (.*)\n(?:.*\n)*?```$", re.MULTILINE)


def printed(found: re.Match[str]) -> str:
    """Return the session again, with what its command prints at 80 columns."""
    path = f"{sys.prefix}/bin:{os.environ['PATH']}"
    environment = os.environ | {"COLUMNS": "80", "PATH": path}
    command = ["/bin/bash", "-c", found[1]]
    output = subprocess.check_output(command, cwd=ROOT, env=environment, text=True)
    return f"```console\n$ {found[1]}\n{output}```"


if __name__ == "__main__":
    PAGE.write_text(SESSION.sub(printed, PAGE.read_text()))
