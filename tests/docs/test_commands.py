"""Each command, session and program of the pages runs, and does what the page says."""

import re
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from emulator import Emulator
from tests.docs import pages
from tests.docs.pages import NAMES, ROOT, Step
from tests.docs.stand_in import SHAPES
from tests.support.images import build
from tests.test_build_and_run import NITRO_CLI

Machine = tuple[Path, dict[str, str]]
# Each takes too long, or needs what a laptop lacks. The file that runs it as well:
ELSEWHERE = {
    "test.sh": ".ci/run",
    "test-vm.sh": ".ci/run",
    "tests/image/run": ".ci/run",
    "benchmarks/__main__.py": "tests/benchmarks/test_benchmarks.py",
    "scripts/audit": ".github/workflows/advisories.yml",
    "scripts/check": "tests/deploy/test_contributing.py",
    "scripts/image": ".github/workflows/release.yml",
    "scripts/rebuild": "tests/test_release.py",
    "scripts/sbom": "scripts/image",
}
VENV = f"""#!/bin/sh -e
cd "$(dirname "$0")/.."
test -e "$2"
mkdir -p .venvs
ln -sfn {sys.prefix} "$1"
"""
PROGRAMS = {
    "nitro-cli": NITRO_CLI,
    "sudo": '#!/bin/sh\nexec "$@"\n',
    "aws": f'#!/bin/sh\nexec {sys.executable} {ROOT}/tests/docs/aws.py "$@"\n',
    **{
        name: f'#!/bin/sh\nexec {sys.executable} {ROOT}/tests/docs/stand_in.py {name} "$@"\n'
        for name in SHAPES
    },
}
KEY = "foobar-instance create-key -q\n"
SEALED = """
printf 'one\\ntwo\\n' >messages
CIPHERTEXT=$(foobar-instance encrypt -q --plaintext banana)
foobar-instance encrypt -q --lines --plaintext - <messages >ciphertexts
"""
WAITING = """until grep -qE '^Up, |relaying' server.log
do kill -0 $! || { cat server.log; exit 1; }; sleep 0.1; done"""
LISTENING = "(: </dev/tcp/127.0.0.1/8000) && (: </dev/tcp/127.0.0.1/8001)"
FEW_CASES = """
python -c "
import json
from corpus.run import FILE
corpus = json.loads(FILE.read_text())
corpus['cases'] = corpus['cases'][::40]
FILE.write_text(json.dumps(corpus))"
"""
NO_EMULATOR = "unset FOOBAR_ENCLAVE FOOBAR_PROXY_LISTEN FOOBAR_ROOT_PATH AWS_ENDPOINT_URL_KMS\n"
# Stands in for atheris, which would go on for an hour; the fuzzer's own code runs.
FUZZER = """
cat >atheris.py <<'END'
from contextlib import nullcontext
def instrument_imports(include):
    return nullcontext()
def Setup(arguments, check):
    [check(data) for data in (b"", b"\\xd2\\x84")]
Fuzz = print
END
python3() {
    mkdir -p "$3/bin"
    install /dev/stdin "$3/bin/python" <<'END'
#!/bin/sh
exec python "$@"
END
    install /dev/stdin "$3/bin/pip" <<'END'
#!/bin/sh
END
}
"""
EMULATOR = """
from datetime import timedelta
from pathlib import Path
import cbor2
from emulator import Emulator
from emulator.clock import utc_now
directory = Path("other")
ten_minutes_ago = lambda: utc_now() - timedelta(minutes=10)
request = cbor2.dumps("DescribeNSM")
"""
DOCUMENT = """
from foobar_instance import attestation
from tests.support import forge
document = forge.document(user_data=b"hello", nonce=b"n")
pcr0 = forge.PCRS[0].hex()
nonce = b"n"
verifier = attestation.Verifier
attestation.Verifier = lambda: verifier(forge.root())
"""
AUCTION = """
import pytest
from examples.sealed_bids.computation import ComputationError, compute
from tests.examples.test_sealed_bids import bids
BIDS, MADE_UP = bids(5, 9, 7), b"made up"
"""
ROOTED = """
import functools, os
from cryptography import x509
from pathlib import Path
import foobar_instance.attestation as library
root = x509.load_pem_x509_certificate(Path(os.environ["FOOBAR_ROOT_PATH"]).read_bytes())
library.verify_attestation = functools.partial(library.verify_attestation, root=root)
library.Verifier = functools.partial(library.Verifier, root)
"""


@dataclass(frozen=True)
class Given:
    """What a page takes for granted: commands before it, and Python before and after its own."""

    before: str = ""
    python: str = ""
    printed: str = "...\n"


GIVEN = {
    "README.md": Given(before="printf 'one\\ntwo\\n' >messages\n", python=ROOTED),
    "corpus/README.md": Given(before=FEW_CASES),
    "deploy/kubernetes/README.md": Given(before=KEY),
    "docs/emulator.md": Given(before=NO_EMULATOR, python=EMULATOR),
    "docs/proof.md": Given(before=KEY + SEALED),
    "docs/verification.md": Given(
        before=FUZZER,
        python=DOCUMENT,
        printed="i-... b'hello'\nrefused by rule chain-validity: every certificate must be...\n",
    ),
    "docs/your-own-service.md": Given(before="echo banana >message\n", python=AUCTION),
}


@pytest.fixture
def machine(nitro_emulator: Emulator) -> Iterator[Machine]:
    """A root folder that holds a copy of the project, and the environment of a shell there."""
    # The path of a unix socket is short.
    with tempfile.TemporaryDirectory(prefix="fd-") as name:
        root = Path(name)
        project = root / "opt/foobar"
        unwanted = shutil.ignore_patterns(".git", ".venvs", "__pycache__", ".*cache", ".hypothesis")
        shutil.copytree(ROOT, project, ignore=unwanted, symlinks=True)
        for path in ("etc/nitro_enclaves", "run", "tmp", "usr/bin", "bin"):
            (root / path).mkdir(parents=True)
        programs = {project / script: "#!/bin/sh\n" for script in ELSEWHERE}
        programs |= {root / "bin" / name: text for name, text in PROGRAMS.items()}
        for program, text in {**programs, project / "scripts/venv": VENV}.items():
            program.write_text(text)
            program.chmod(0o755)
        (root / "image.eif").write_bytes(build())
        (root / "etc/nitro_enclaves/allocator.yaml").write_text("memory_mib: 512\ncpu_count: 2\n")
        measurements = nitro_emulator.measurements_path().read_text()
        (project / "foobar-enclave.measurements.json").write_text(measurements)
        environment = nitro_emulator.process_environment(
            {
                "PATH": f"{root}/bin:{root}/usr/bin:{sys.prefix}/bin:/usr/bin:/bin",
                "HOME": name,
                "PYTHONPATH": str(project),
                "XDG_RUNTIME_DIR": f"{name}/run",
                "COLUMNS": "80",
                "LC_ALL": "C.UTF-8",
            }
        )
        del environment["FOOBAR_MEASUREMENTS"]
        yield (
            root,
            environment
            | {
                "PCR0": nitro_emulator.enclave.measurements.pcr0.hex(),
                "PRINTED": measurements,
                "EIF": f"{name}/image.eif",
                "EIF_BYTES": "1000000",
                "RUNNING": "[]",
                "CALLS": "/dev/null",
                "FOOBAR_NITRO_DEVICE": "/dev/null",
                "FOOBAR_ALLOCATOR_CONFIG": f"{name}/etc/nitro_enclaves/allocator.yaml",
            },
        )


def moved(script: str, root: Path) -> str:
    """The script with its absolute paths under the root, and its servers in the background."""
    script = re.sub(r"(?<![\w./])/(?=(etc|opt|tmp|usr/bin)\b)", f"{root}/", script)
    script = script.replace("vsock:3:1001", f"unix:{root}/vsock.sock")
    script = script.replace("sleep 1\n", f"until {LISTENING}; do sleep 0.1; done 2>/dev/null\n")
    for port, free in zip(("8000", "8001"), free_ports(), strict=True):
        script = script.replace(port, str(free))
    script = re.sub(r"\bsha256:DIGEST\b", f"sha256:{'0a' * 32}", script)
    server = r"^(.*-m (?:emulator up(?! --help)|proxy .* --to kms\.).*?)( +#.*)?$"
    return re.sub(server, rf"\1 >server.log 2>&1 &\n{WAITING}", script, flags=re.MULTILINE)


def free_ports() -> tuple[int, int]:
    places = ("127.0.0.1", 0)
    with socket.create_server(places) as first, socket.create_server(places) as second:
        return first.getsockname()[1], second.getsockname()[1]


RUNNABLE = [name for name in NAMES if list(pages.page_steps((ROOT / name).read_text(), "", ""))]


@pytest.mark.parametrize("name", RUNNABLE)
def test_a_page_does_what_it_shows(name: str, machine: Machine) -> None:
    check((ROOT / name).read_text(), name, machine)


def check(text: str, name: str, machine: Machine) -> None:
    root, environment = machine
    given = GIVEN.get(name, Given())
    steps = [Step(1, given.before), *pages.page_steps(text, given.python, given.printed)]
    steps = [replace(step, script=moved(step.script, root)) for step in steps]
    code, outputs = pages.run(steps, root / "opt/foobar", environment)
    last = steps[len(outputs) - 1].line
    assert code == 0, f"{name}:{last}: {outputs[-1]}"
    for step, output in zip(steps, outputs, strict=True):
        printed = output.replace(str(root), "")
        assert step.shown is None or pages.is_shown(step.shown, printed), (
            f"{name}:{step.line}: {printed}"
        )


@pytest.mark.parametrize(("program", "proof"), ELSEWHERE.items())
def test_what_is_not_run_here_is_run_elsewhere(program: str, proof: str) -> None:
    assert (ROOT / program).exists()
    named = (program, program.removesuffix(".py").replace("/", "."))
    assert any(name in (ROOT / proof).read_text() for name in named)


@pytest.mark.parametrize("name", NAMES)
def test_every_block_says_what_it_is(name: str) -> None:
    text = (ROOT / name).read_text()
    assert text.count("```") == 2 * len(list(pages.blocks(text))), f"{name}: a fence is not closed"
    for found in re.finditer(r"\n\n( {4,}|\t)\S", pages.unfenced(text)):
        line = text.count("\n", 0, found.end()) + 1
        pytest.fail(f"{name}:{line}: an indented block: {pages.HINT}")
    for block in pages.blocks(text):
        place = f"{name}:{block.line}"
        assert block.language in pages.LANGUAGES, f"{place}: {pages.HINT}"
        if block.language == "json":
            pages.parse_json(block.text)
        elif block.language == "console":
            assert block.text.startswith("$ "), f"{place}: {pages.HINT}"
        elif block.language == "text":
            for shown in filter(str.isascii, block.text.splitlines()):
                word = shown.strip().partition(" ")[0]
                assert not is_command(word), f"{place}: {word} is a command: {pages.HINT}"


def is_command(word: str) -> bool:
    known = word in {"$", *PROGRAMS} or word.startswith("./") or (ROOT / word).is_file()
    return known or shutil.which(word) is not None


@pytest.mark.parametrize(
    ("shown", "output", "right"),
    [
        ("a\n", "a\n", True),
        ("a\n", "a\nb\n", False),
        ("a ... c\n", "a b c\n", True),
        ("a...\n", "a\nb\n", False),
        ("a\n...\nc\n", "a\nb\nc\n", True),
        ("a\n...\nc\n", "a\nc\n", True),
        ("a.c\n", "abc\n", False),
    ],
)
def test_dots_stand_for_what_varies(shown: str, output: str, *, right: bool) -> None:
    assert pages.is_shown(shown, output) is right


WRONG = [
    "```sh\nfalse\n```\n",
    "```sh\nfalse | true\n```\n",
    "```sh\nfoobar-instance decrypt --no-such-option\n```\n",
    "```sh\naws kms describe-key\n```\n",
    "```sh\naws kms describe-key --key-id x --bogus y\n```\n",
    "```sh\nx=$(aws kms list-keys --query Nothing)\n```\n",
    "```sh\naws ec2 describe-vpcs --filters Nam=x,Values=y\n```\n",
    "```sh\nkubectl apply -f nothing.yaml\n```\n",
    "```sh\nsudo docker run image\n```\n",
    "```console\n$ false\n```\n",
    "```console\n$ true\n$ false\n$ echo $?\n0\n```\n",
    "```console\n$ echo one\ntwo\n```\n",
    "```python\nraise ValueError\n```\n",
]


def test_a_page_that_is_wrong_fails(machine: Machine) -> None:
    for page in WRONG:
        with pytest.raises(AssertionError, match=r"page\.md:1: "):
            check(page, "page.md", machine)
