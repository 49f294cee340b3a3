"""The files of `.github` and the hook for pre-commit: valid by their formats' own checkers."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import ember_testing
from ember.api import models
from tests.loopback import serving
from tests.testing.chat import chat

ROOT = Path(__file__).parents[2]
GITHUB = ROOT / ".github"
EXAMPLE = GITHUB / "examples" / "replay.yml"
SCHEMAS = {
    "vendor.github-workflows": [*GITHUB.glob("workflows/*.yml"), EXAMPLE],
    "vendor.github-issue-forms": [
        path for path in GITHUB.glob("ISSUE_TEMPLATE/*.yml") if path.name != "config.yml"
    ],
    "vendor.github-issue-config": [GITHUB / "ISSUE_TEMPLATE" / "config.yml"],
    "vendor.dependabot": [GITHUB / "dependabot.yml"],
}


def run(*command: object, **more: Any) -> str:
    """What a command prints; it must succeed."""
    done = subprocess.run(
        [str(part) for part in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=120,
        **more,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def load(path: Path) -> Any:
    """A YAML file."""
    yaml = pytest.importorskip("yaml", reason="in the extra vcr")
    return yaml.safe_load(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("schema", SCHEMAS)
def test_github_files_keep_their_schema(schema: str) -> None:
    """Workflows, issue forms and settings are what GitHub's published schemas say."""
    pytest.importorskip("check_jsonschema", reason="in the extra dev")
    assert SCHEMAS[schema]
    run(sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, *SCHEMAS[schema])


def test_workflows_are_safe() -> None:
    """Zizmor, which knows what can go wrong in a workflow, has nothing to say, pedantic."""
    try:
        installed = metadata.files("zizmor") or []
    except metadata.PackageNotFoundError:
        pytest.skip("zizmor is in the extra dev")
    zizmor = next(file for file in installed if file.stem == "zizmor").locate()
    settings = GITHUB / "zizmor.yml"
    run(zizmor, "--offline", "--pedantic", "--no-progress", "--config", settings,
        *SCHEMAS["vendor.github-workflows"], GITHUB / "dependabot.yml")  # fmt: skip


def test_the_hook_for_pre_commit_is_valid_and_runs(tmp_path: Path) -> None:
    """pre-commit takes the manifest, and the hook's command finds a key in a cassette."""
    manifest = ROOT / ".pre-commit-hooks.yaml"
    pytest.importorskip("pre_commit", reason="in the extra dev")
    run(sys.executable, "-m", "pre_commit", "validate-manifest", manifest)
    (hook,) = load(manifest)
    command, *arguments = hook["entry"].split()
    assert command == "ember-cassettes"
    path = tmp_path / "cassettes" / "a.sqlite"
    with serving(chat) as server, ember_testing.cassette(path, record="new"):
        models("openai/gpt-5.6-sol", "AKIA" + "Q" * 16, base_url=f"{server.url}/v1", api_key="k")
    check = [sys.executable, "-m", "ember_testing.cli", *arguments, path]
    done = subprocess.run(check, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "AWS access key" in done.stdout


def test_the_reference_is_built_without_a_warning(tmp_path: Path) -> None:
    """Every public name has a docstring, and pdoc resolves every annotation and finds no fault."""
    pytest.importorskip("pdoc", reason="in the extra dev")
    printed = run(sys.executable, ROOT / ".ci" / "reference.py", "-o", tmp_path, cwd=ROOT)
    assert "8 modules, 0 names without a docstring" in printed
    page = (tmp_path / "ember_testing.html").read_text(encoding="utf-8")
    assert all(f'id="{name}"' in page for name in ember_testing.__all__)


def test_a_public_name_without_a_docstring_is_found() -> None:
    """The script names what nobody described: here a class made for it."""
    pdoc = pytest.importorskip("pdoc", reason="in the extra dev")
    script = runpy.run_path(str(ROOT / ".ci" / "reference.py"))
    module = ModuleType("ember_testing.unwritten")

    class Unwritten:
        pass

    Unwritten.__module__, Unwritten.__qualname__ = module.__name__, "Unwritten"
    vars(module).update(Unwritten=Unwritten, __all__=["Unwritten"])
    found = list(script["undocumented"](pdoc.doc.Module(module)))
    assert found == ["ember_testing.unwritten.Unwritten"]


def test_supported_versions_are_the_same_everywhere() -> None:
    """The tested interpreters are those that the package claims; others are called untested."""
    jobs = load(GITHUB / "workflows" / "ci.yml")["jobs"]
    tested = jobs["tests"]["strategy"]["matrix"]["python"]
    classifiers = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert tested == ["3.10", "3.11", "3.12", "3.13"]
    assert all(f"Python :: {version}" in classifiers for version in tested)
    assert jobs["untested"]["continue-on-error"] is True
    assert "(untested)" in jobs["untested"]["name"]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A project whose branch records one call anew and adds a file."""
    git = ["git", "-C", tmp_path, "-c", "user.name=a", "-c", "user.email=a@example.org"]
    run(*git, "init", "-q")
    path = tmp_path / "cassettes" / "tests" / "test_towns.sqlite"
    with serving(chat) as server:
        for question in ("Paris", "Rome ~~~~~~~~~~\n~~~~~~~~~~\n@everybody"):
            with ember_testing.cassette(path, record="all"):
                models("openai/gpt-5.6-sol", question, base_url=f"{server.url}/v1", api_key="k")
            run(*git, "add", "cassettes")
            run(*git, "commit", "-qm", "A recording")
    return tmp_path


def test_the_review_workflow_writes_a_comment(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its step, run as GitHub does, shows the change as a transcript that stays in its fence."""
    steps = load(EXAMPLE)["jobs"]["review"]["steps"]
    script = next(step["run"] for step in steps if step.get("name") == "Compare")
    command = repository / "bin" / "ember-cassettes"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m ember_testing.cli "$@"\n')
    command.chmod(0o755)
    base = run("git", "-C", repository, "rev-parse", "HEAD~1").strip()
    monkeypatch.setenv("PATH", f"{command.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("BASE", base)
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(repository / "summary.md"))
    run("bash", "-eo", "pipefail", "-c", script, cwd=repository)
    comment = (repository / "comment.md").read_text(encoding="utf-8")
    assert (repository / "summary.md").read_text(encoding="utf-8") == comment
    assert "\n-user: Paris\n" in comment
    assert "\n+user: Rome" in comment
    lines = comment.splitlines()
    fences = [number for number, line in enumerate(lines) if line.startswith("~~~~~~~~~~")]
    assert fences == [1, len(lines) - 1]
    monkeypatch.setenv("BASE", run("git", "-C", repository, "rev-parse", "HEAD").strip())
    run("bash", "-eo", "pipefail", "-c", script, cwd=repository)
    assert "No recording changes." in (repository / "comment.md").read_text(encoding="utf-8")


def test_linters_find_a_planted_fault(tmp_path: Path, run_check: Callable[[Path], int]) -> None:
    """A workflow with an unknown key is refused, so that the test above proves something."""
    workflow = tmp_path / "bad.yml"
    workflow.write_text(EXAMPLE.read_text(encoding="utf-8").replace("runs-on:", "runs_on:"))
    assert run_check(workflow) == 1


@pytest.fixture
def run_check() -> Callable[[Path], int]:
    """The exit code of the schema's checker."""
    pytest.importorskip("check_jsonschema", reason="in the extra dev")
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema"]

    def check(path: Path) -> int:
        arguments = [*command, "vendor.github-workflows", str(path)]
        return subprocess.run(arguments, capture_output=True, check=False).returncode

    return check
