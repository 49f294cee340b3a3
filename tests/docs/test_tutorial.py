"""The tutorial: the triage application and its tests, run with the built wheel."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parent / "triage"


@pytest.mark.slow
def test_the_triage_application_passes_its_tests_with_the_wheel(
    tmp_path: Path, unpacked_wheel: Path, pytestconfig: pytest.Config
) -> None:
    """A copy of the project replays its recording and passes, with nothing but the wheel.

    With `--ember-record=all`, and the embedded model installed, its recording is made anew.
    """
    project = tmp_path / "project"
    mode = pytestconfig.getoption("ember_record") or "none"
    left_out = shutil.ignore_patterns("__pycache__", *(["cassettes"] if mode == "all" else []))
    shutil.copytree(PROJECT, project, ignore=left_out)
    check = f"import ember; assert ember.__file__.startswith({str(unpacked_wheel)!r})"
    keyless = {name: value for name, value in os.environ.items() if "API_KEY" not in name}
    environment = {**keyless, "PYTHONPATH": str(unpacked_wheel), "PYTHONDONTWRITEBYTECODE": "1"}
    printed = ""
    for arguments in (
        ["-c", check],
        ["-m", "pytest", "-v", "-p", "no:cacheprovider", f"--ember-record={mode}"],
        ["-m", "ember_testing.cli", "html", "cassettes", "-o", "recordings.html"],
    ):
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=project,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        printed += done.stdout
    assert "6 passed" in printed
    assert "recordings.html: 1 call of 1 cassette" in printed
    if mode == "all":
        shutil.copytree(project / "cassettes", PROJECT / "cassettes", dirs_exist_ok=True)
    else:
        assert "1 replayed, 0 recorded" in printed
