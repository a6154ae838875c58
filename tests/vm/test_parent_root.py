import os
import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.vm import authorities, parent_root
from tests.vm.errors import LabError, LabUnavailableError
from tests.vm.packages import Software

PACKAGES = parent_root.PACKAGES


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "parent"
    for name in (
        "bin/busybox",
        "sources/pyproject.toml",
        "usr/bin/python3",
        "usr/lib/python3/dist-packages/pip/__init__.py",
        "usr/lib/python3.11/test/support.py",
        "usr/share/doc/libc6/copyright",
        "wheels/one.whl",
        f"{PACKAGES}/botocore/data/endpoints.json",
        f"{PACKAGES}/botocore/data/kms/2014-11-01/service-2.json.gz",
        f"{PACKAGES}/botocore/data/s3/2006-03-01/service-2.json.gz",
        f"{PACKAGES}/ecdsa/__init__.py",
        f"{PACKAGES}/ecdsa/tests/test_one.py",
        f"{PACKAGES}/emulator/__init__.py",
        f"{PACKAGES}/foobar_instance/tests.py",
        f"{PACKAGES}/single.py",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def files(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


def test_what_is_not_read_goes_and_all_else_stays(root: Path) -> None:
    before = files(root)
    parent_root.prune(root)
    assert before - files(root) == {
        "sources/pyproject.toml",
        "usr/lib/python3/dist-packages/pip/__init__.py",
        "usr/share/doc/libc6/copyright",
        "wheels/one.whl",
        f"{PACKAGES}/botocore/data/s3/2006-03-01/service-2.json.gz",
        f"{PACKAGES}/ecdsa/tests/test_one.py",
    }


def test_the_machine_knows_its_names_and_users(root: Path) -> None:
    (root / "etc").mkdir()
    (root / "etc/resolv.conf").write_text("nameserver 192.0.2.1\n")
    parent_root._configure(root)
    assert "127.0.0.1 localhost kms.us-east-1.amazonaws.com" in (root / "etc/hosts").read_text()
    users = [line.split(":")[0] for line in (root / "etc/passwd").read_text().splitlines()]
    assert users == ["root", "nobody"]
    assert not (root / "etc/resolv.conf").exists()
    assert stat.S_IMODE((root / "tmp").stat().st_mode) == 0o1777
    assert os.readlink(root / "bin/sh") == "busybox"  # noqa: PTH115 - as it is written


def test_the_lab_and_its_authorities_are_there(tmp_path: Path) -> None:
    made = authorities.create(datetime(2026, 1, 1, tzinfo=UTC))
    parent_root._add_lab(tmp_path / "lab", made)
    found = files(tmp_path / "lab")
    assert {"tests/__init__.py", "tests/vm/cpio.py", "emulator/pki.py"} <= found
    held = {
        path.name: path.read_bytes() for path in sorted((tmp_path / "lab/authorities").iterdir())
    }
    assert held == {
        "nitro_root.pem": made.nitro_root,
        "tls_ca.pem": made.tls_ca,
        "tls_key_and_certificate.pem": made.tls_key_and_certificate,
    }
    key = tmp_path / "lab/authorities/tls_key_and_certificate.pem"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600


def test_the_parent_has_all_that_the_project_is_built_from(tmp_path: Path) -> None:
    parent_root._copy_sources(tmp_path / "sources")
    found = files(tmp_path / "sources")
    wanted = {"pyproject.toml", "README.md", "LICENSE", "foobar_instance/cli.py", "proxy/relay.py"}
    assert wanted | set(parent_root.REQUIREMENTS) <= found
    assert not [name for name in found if name.endswith(".pyc")]


@pytest.fixture
def chroot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    tool = tmp_path / "tools/chroot"
    tool.parent.mkdir()
    tool.touch(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:/usr/bin:/bin")
    monkeypatch.setenv("PIP_INDEX_URL", "http://index.example/")
    return tool


def test_what_runs_in_the_parent_sees_nothing_of_this_machines_variables(
    chroot: Path, tmp_path: Path
) -> None:
    chroot.write_text(f'#!/bin/sh\necho "$*" > {tmp_path}/words\nenv > {tmp_path}/variables\n')
    parent_root._pip(tmp_path / "root", "/sources")
    assert (tmp_path / "words").read_text().startswith(f"{tmp_path}/root /usr/bin/python3 -m pip ")
    assert "--no-index" in (tmp_path / "words").read_text()
    assert "PIP_INDEX_URL" not in (tmp_path / "variables").read_text()


def test_a_failing_installation_is_told_in_one_line(chroot: Path, tmp_path: Path) -> None:
    chroot.write_text("#!/bin/sh\necho first >&2; echo 'ERROR: no such wheel' >&2; exit 1\n")
    with pytest.raises(LabError, match=r"^the parent: python3 -m pip .*: ERROR: no such wheel$"):
        parent_root._pip(tmp_path, "--requirement", "/sources/requirements/runtime.txt")


def test_an_installation_that_does_not_end_is_ended(
    chroot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chroot.write_text("#!/bin/sh\nexec sleep 60\n")
    monkeypatch.setattr(parent_root, "INSTALL_SECONDS", 0.2)
    with pytest.raises(LabError, match="the parent: python3 pip did not end"):
        parent_root._pip(tmp_path)


def test_only_root_can_make_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    software = Software(
        qemu=(), kernel=tmp_path, modules=(), busybox=tmp_path, guest=tmp_path / "guest"
    )
    made = authorities.create(datetime(2026, 1, 1, tzinfo=UTC))
    with pytest.raises(LabUnavailableError, match="has to be run by root"):
        parent_root.build(software, tmp_path, authorities=made)
    assert not list(tmp_path.iterdir())
