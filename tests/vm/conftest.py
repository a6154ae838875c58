from pathlib import Path

import pytest


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    # The scenario needs machines, which `python -m tests.vm` builds.
    without_lab = not config.pluginmanager.has_plugin("lab")
    return True if without_lab and collection_path.name == "scenario" else None
