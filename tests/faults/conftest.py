"""A finished result for the tests of results from elsewhere and of storage that fails."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest
from support import demonstration
from support.finished import STUDY

from studies import results
from studies.runner import Result, run


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Result:
    return run(STUDY, "smoke", out=tmp_path_factory.mktemp("template") / "out", workers=0)


@pytest.fixture
def whole(template: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Result:
    """A finished result in `out` of an otherwise empty folder, which is the current one."""
    shutil.copytree(template.folder.parent.parent, tmp_path / "out")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demonstration, "figures", lambda rows, config: {})
    monkeypatch.setattr(results, "FOLDER", tmp_path / "shelf")
    monkeypatch.setattr(results.publish, "__defaults__", (tmp_path / "shelf",))
    folder = tmp_path / "out" / template.folder.relative_to(template.folder.parent.parent)
    return dataclasses.replace(template, folder=folder)
