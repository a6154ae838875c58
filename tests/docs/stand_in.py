"""A stand-in for a program that is not here: PROGRAM ARGUMENTS must have a shape that is known."""

import re
import sys
from pathlib import Path

SHAPES = {
    "dnf": r"install -y( [a-z0-9.-]+)+",
    "docker": r"info|build( --file FILE)?( --(tag|build-arg) \S+)+ \.|push \S+",
    "gh": r"release download \S+ --dir \S+|attestation verify \S+ --repo \w+/\w+",
    "git": r"clone https://\S+ [\w./-]+|checkout \S+",
    "kubectl": r"apply -f FILE|create configmap [a-z-]+( --from-file=FILE)+",
    "systemctl": r"enable --now( (docker|nitro-enclaves-allocator|foobar-[a-z.-]+))+",
}

if __name__ == "__main__":
    program, line = sys.argv[1], " ".join(sys.argv[2:])
    if not re.fullmatch(SHAPES[program].replace("FILE", r"[\w./-]+"), line):
        sys.exit(f"{program} {line}: no shape of it is known in {__file__}")
    for file in re.findall(r"(?:--file |-f |--from-file=)(\S+)", line):
        if not Path(file).exists():
            sys.exit(f"{program} {line}: no file {file}")
    for unit in re.findall(r"foobar-[a-z.-]+", line) if program == "systemctl" else ():
        if not list((Path(__file__).parents[2] / "deploy").glob(f"{unit}*")):
            sys.exit(f"{program} {line}: no unit {unit}")
