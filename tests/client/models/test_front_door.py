"""The public import paths, in any order; `models` as function and package; types."""

from __future__ import annotations

import importlib
import json
import os
import pickle
import pydoc
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from unittest import mock

import pytest

import ember
import ember.api
import ember.api.exceptions
import ember.api.models
import ember.api.models.providers
import ember.api.models.schemas
import ember.models
from ember.api import models
from ember.api.exceptions import ModelProviderError
from ember_testing import FakeModel
from tests.ways import KEY

ROOT = Path(__file__).parents[3]

# Every import of the design document, with an assertion about it.
IMPORTS = (
    ("from ember.api import models", "callable(models) and models.instance and models.acall"),
    ("from ember.api.models import ModelRegistry", "ModelRegistry().invoke_model"),
    ("from ember.models import ModelRegistry", "ModelRegistry().invoke_model_async"),
    ("from ember import models", "callable(models) and models.instance and models.acall"),
    ("import ember", "callable(ember.models) and ember.__version__"),
    ("import ember.models as m", "m.ModelRegistry and callable(m) and m.stream"),
    ("import ember.models.schemas", "ember.models.schemas.ChatResponse"),
    ("import ember.conversation.parts", "ember.conversation.parts.Text"),
    ("import ember.providers.call", "ember.providers.call.Call"),
    (
        "from ember.api.models.providers import register_provider, BaseProvider",
        "register_provider and BaseProvider.complete",
    ),
    (
        "from ember.api.models.schemas import ChatResponse, UsageStats",
        "ChatResponse('x', UsageStats()).text == 'x'",
    ),
    (
        "from ember.api.exceptions import ModelProviderError, ProviderAPIError",
        "issubclass(ModelProviderError, Exception) and ProviderAPIError",
    ),
)
ALSO = ("import ember.api.models", "ember.api.models('gpt-4', 'x') if 0 else True")


def run(*programs: str) -> list[subprocess.CompletedProcess[str]]:
    """Run all programs at once, each in a new interpreter with warnings as errors."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", program],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        for program in programs
    ]
    return [subprocess.CompletedProcess(p.args, p.wait(60), *p.communicate()) for p in processes]


# --- import paths -------------------------------------------------------------------------------


@pytest.mark.slow
def test_every_import_in_every_order() -> None:
    """The document's import paths work in any order, with no module of Ember loaded before.

    All pairs in both orders are tested: any third import finds what one of the two loaded.
    """
    program = f"""
import itertools, sys
IMPORTS = {(*IMPORTS, ALSO)!r}
for order in itertools.permutations(IMPORTS, 2):
    for name in [name for name in sys.modules if name.partition(".")[0] == "ember"]:
        del sys.modules[name]
    names = {{}}
    for code, truth in order:
        exec(code, names)
        assert eval(truth, names), (order, truth)
print("done")
"""
    (done,) = run(program)
    assert (done.stdout, done.stderr) == ("done\n", "")


def test_each_import_alone() -> None:
    """Each import path works as the first line of a program, and prints nothing."""
    programs = [f"{code}\nassert {truth}\nprint('done')" for code, truth in (*IMPORTS, ALSO)]
    results = [(done.stdout, done.stderr) for done in run(*programs)]
    assert results == [("done\n", "")] * (len(IMPORTS) + 1)


def test_import_loads_neither_toolkit_nor_anyio() -> None:
    """Importing the client loads neither the test toolkit nor an event loop's library."""
    program = (
        "import sys, ember.api\n"
        "print(sorted({'ember_testing', 'pytest', 'anyio', 'trio'} & {*sys.modules}))"
    )
    (done,) = run(program)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_both_packages_are_the_function() -> None:
    """`ember.models` is the same function as `ember.api.models`: pickled, patched, in `help`."""
    programs = [
        "import pickle; from ember import models\n"
        "assert pickle.loads(pickle.dumps(models)) is models",
        "from unittest import mock; from ember import models\n"
        "with mock.patch('ember.models.function.default_registry') as registry:\n"
        "    models('a', 'b', top_k=1)\n"
        "registry.invoke_model.assert_called_once_with('a', 'b', top_k=1)",
        "from unittest import mock\n"
        "with mock.patch('ember.models.stream') as stream:\n"
        "    import ember; ember.models.stream('a', 'b')\n"
        "stream.assert_called_once_with('a', 'b')",
        "import inspect; from ember import models\n"
        "assert 'temperature' in inspect.signature(models).parameters",
        "import pydoc, ember.models as m\n"
        "assert 'models(model, prompt' in pydoc.plain(pydoc.render_doc(m)).split('NAME')[1][:80]",
        "from ember import models; from ember.models.function import Models\n"
        "models.instance; assert isinstance(models, Models)",
        "import sys, ember.exceptions; assert 'httpx' not in sys.modules",
    ]
    assert [(done.stdout, done.stderr) for done in run(*programs)] == [("", "")] * len(programs)


@pytest.mark.parametrize(
    ("module", "names"),
    [
        (ember.api, "models"),
        (
            ember.api.models,
            "AsyncStream ModelBinding ModelRegistry Models Stream UsageSummary",
        ),
        (ember.api.models.providers, "BaseProvider register_provider"),
        (ember.api.models.schemas, "ChatResponse Chunk FinishReason ToolCall UsageStats"),
        (
            ember.api.exceptions,
            "ERROR_TYPES EmberError ErrorType ModelProviderError ProviderAPIError "
            "UnknownPriceWarning",
        ),
        (ember, "__version__ models"),
        (
            ember.models,
            "AsyncStream ModelBinding ModelRegistry Models Stream UsageSummary",
        ),
    ],
    ids=lambda value: value.__name__ if isinstance(value, ModuleType) else "",
)
def test_export_lists(module: ModuleType, names: str) -> None:
    """The names that each public module exports are pinned: users import them."""
    assert module.__all__ == names.split()
    assert all(hasattr(module, name) for name in module.__all__)


# --- the callable package -----------------------------------------------------------------------


def test_models_is_function_and_package() -> None:
    """`models` is the package itself, callable, with its forms as methods."""
    assert models is sys.modules["ember.api.models"]
    assert isinstance(models, ember.api.models.Models)
    assert isinstance(models, ModuleType)
    for form in (models, models.instance, models.stream, models.acall, models.astream):
        assert callable(form)


def test_no_submodule_shadows_a_method() -> None:
    """A submodule named like a method would replace it when it is imported."""
    folder = ROOT / "ember" / "api" / "models"
    modules = {path.stem for path in folder.iterdir()}
    assert not modules & {name for name in vars(ember.api.models.Models) if name[0] != "_"}


def test_models_pickles() -> None:
    """`models` unpickles to the same function in another process."""
    assert pickle.loads(pickle.dumps(models)) is models
    program = (
        "import pickle, sys\n"
        f"models = pickle.loads({pickle.dumps(models)!r})\n"
        "from ember.api import models as known\n"
        "print(models is known and callable(models))"
    )
    (done,) = run(program)
    assert (done.stdout, done.stderr) == ("True\n", "")


def test_models_is_patched_by_its_dotted_name() -> None:
    """`mock.patch` replaces the function or one of its forms, and restores it."""
    with mock.patch("ember.api.models") as patched:
        patched.return_value.text = "patched"
        assert ember.api.models("gpt-4", "Hi").text == "patched"
    with mock.patch("ember.api.models.stream") as patched:
        models.stream("gpt-4", "Hi")
        patched.assert_called_once_with("gpt-4", "Hi")
    assert ember.api.models is models
    assert "stream" not in vars(models)


@pytest.mark.parametrize("form", ["stream", "astream", "acall", "instance"])
def test_a_patch_holds_in_both_packages(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Patching a form of the function on one import path patches it on the other too."""
    both = [sys.modules["ember.api.models"], sys.modules["ember.models"]]
    for one, other in (both, both[::-1]):
        with mock.patch.object(one, form, mock.Mock()) as patched:
            getattr(other, form)("gpt-4", "Hi")
            patched.assert_called_once_with("gpt-4", "Hi")
        assert form not in vars(one) | vars(other)
        with monkeypatch.context() as patch:
            patch.setattr(one, form, len)
            assert getattr(other, form) is len
        assert getattr(one, form) == getattr(type(one), form).__get__(one)
        for package in both:
            vars(package).pop(form, None)  # monkeypatch restores the method as an attribute
        with mock.patch.object(one, "default_registry", create=True):
            assert "default_registry" not in vars(other)


def test_help() -> None:
    """`help(models)` shows the function's arguments."""
    text = pydoc.plain(pydoc.render_doc(models))
    assert "models(model, prompt, **params)" in text
    assert "acall(self, model" in " ".join(text.replace("|", " ").split()).replace("( ", "(")
    assert text.partition("NAME")[2].strip().startswith("ember.api.models - models(model, prompt")
    assert "temperature" in (models.__call__.__doc__ or "") + (
        type(models).__mro__[1].__doc__ or ""
    )


def test_reload() -> None:
    """A reloaded package is still both the function and a package."""
    again = importlib.reload(sys.modules["ember.api.models"])
    assert again is models
    assert callable(models)
    assert models.ModelRegistry is ember.api.models.ModelRegistry  # type: ignore[attr-defined]  # a package too


# --- bindings -----------------------------------------------------------------------------------


def test_binding_merges_parameters(fake_model: FakeModel) -> None:
    """A binding sends its parameters; an override applies to one call."""
    fake_model("gpt-4", lambda call: "Hello!")
    binding = models.instance("gpt-4", temperature=0.2, seed=5)
    for overrides in ({}, {"seed": 20}, {}):
        binding("Hi", **overrides)
    list(binding.stream("Hi", temperature=0.9))
    sent = [call.params for call in fake_model.calls]
    assert [params["seed"] for params in sent] == [5, 20, 5, 5]
    assert [params["temperature"] for params in sent] == [0.2, 0.2, 0.2, 0.9]


def test_binding_of_an_unknown_model() -> None:
    """Binding an unknown model is an error at once, which suggests the nearest name."""
    with pytest.raises(ModelProviderError, match="gpt-4"):
        models.instance("gtp-4")


def test_binding_holds_no_key_in_repr_and_pickle() -> None:
    """A key given to a binding is used, but is in neither its repr nor its pickle."""
    binding = models.instance(
        "gpt-4",
        api_key=KEY,
        temperature=0.2,
        extra_headers={"Authorization": f"Bearer {KEY}", "X-Gateway-Token": KEY, "x-team": "a"},
    )
    assert KEY not in repr(binding)
    assert KEY.encode() not in pickle.dumps(binding)
    expected = "ModelBinding('gpt-4', temperature=0.2, extra_headers={'x-team': 'a'})"
    assert repr(binding) == repr(pickle.loads(pickle.dumps(binding))) == expected


@pytest.mark.parametrize(
    ("base_url", "there"),
    [
        (f"https://me:{KEY}@gw.example/v1?key={KEY}", "https://gw.example/v1"),
        (f"https://gw.example/v1?{KEY}", "https://gw.example/v1"),
        (f"http://{KEY}@gw.example", "http://gw.example/"),
        (f"https://r.example/?sig={KEY}&api-version=1", "https://r.example/?***"),
        ("http+unix://%2Frun%2Fa/v1", "http+unix://%2Frun%2Fa/v1"),
    ],
)
def test_binding_holds_no_secret_of_a_base_url(base_url: str, there: str) -> None:
    """User, password and query of a base URL are in neither the repr nor the pickle."""
    binding = models.instance("gpt-4", base_url=base_url)
    assert KEY not in repr(binding)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        data = pickle.dumps(binding, protocol)
        assert KEY.encode() not in data
        restored = pickle.loads(data)
        assert there.rstrip("/") in repr(restored)
        assert (b"api-version=1" in data) == ("api-version" in base_url)  # not a secret
        assert pickle.dumps(restored, protocol) == data


def test_binding_unpickles_without_its_provider() -> None:
    """A binding unpickles without its provider, and the call's error names the provider."""
    from ember.api.models.providers import BaseProvider, register_provider

    class Here(BaseProvider):
        pass

    register_provider("only-here", Here)
    data = pickle.dumps(models.instance("only-here/m"))
    program = (
        "import pickle\n"
        f"binding = pickle.loads({data!r})\n"
        "from ember.api.exceptions import ModelProviderError\n"
        "try:\n    binding('Hi')\n"
        "except ModelProviderError as error:\n    print('only-here' in str(error))"
    )
    (done,) = run(program)
    assert (done.stdout, done.stderr) == ("True\n", "")


# --- types --------------------------------------------------------------------------------------

PLANTED = {
    'models("gpt-4", "Hi").txt': "attr-defined",
    'models("gpt-4", "Hi").usage.promt_tokens': "attr-defined",
    'models("gpt-4", 42)': "arg-type",
    "models(4, 'Hi')": "arg-type",
    'models("gpt-4")': "call-arg",
    'models.instanse("gpt-4")': "attr-defined",
    'models.instance("gpt-4")(None)': "arg-type",
    'models.acall("gpt-4", "Hi").text': "attr-defined",
    '[chunk.txt for chunk in models.stream("gpt-4", "Hi")]': "attr-defined",
    '[chunk for chunk in models.astream("gpt-4", "Hi")]': "attr-defined",
    'models("gpt-4", "Hi").text + 1': "operator",
    'UsageStats(prompt_tokens="many")': "arg-type",
    "ModelRegistry().get_usage_summary('gpt-4').cost_usd": "union-attr",
    'register_provider("mine", str)': "arg-type",
    'models("gpt-4", "Hi", temperature="hot")': "arg-type",
    'models.instance("gpt-4", max_tokens="many")': "arg-type",
    'models("gpt-4", "Hi").choices': "attr-defined",
    'models("gpt-4", "Hi").usage["cost"].upper()': "attr-defined",
    'models("gpt-4", "Hi").message.upper()': "attr-defined",
}


@pytest.fixture
def planted(tmp_path: Path) -> Path:
    """A program in which each line from the fifth on has a mistake."""
    program = tmp_path / "planted.py"
    program.write_text(
        "from ember.api import models\n"
        "from ember.api.models import ModelRegistry\n"
        "from ember.api.models.providers import register_provider\n"
        "from ember.api.models.schemas import UsageStats\n" + "\n".join(PLANTED) + "\n"
    )
    return program


@pytest.mark.slow
def test_mypy_finds_planted_mistakes(planted: Path, tmp_path: Path) -> None:
    """Strict mypy finds each mistake with the public names."""
    found = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--hide-error-context",
         "--cache-dir", str(tmp_path / "cache"), str(planted)],
        capture_output=True, text=True, cwd=ROOT, env=os.environ | {"MYPYPATH": str(ROOT)},
        check=False,
    )  # fmt: skip
    lines = [line for line in found.stdout.splitlines() if ": error:" in line]
    for number, (code, kind) in enumerate(PLANTED.items(), 5):
        here = [line for line in lines if f"planted.py:{number}: " in line]
        assert [line for line in here if line.endswith(f"[{kind}]")], (code, here)


@pytest.mark.slow
def test_pyright_finds_planted_mistakes_and_none_else(planted: Path, tmp_path: Path) -> None:
    """Strict pyright finds each of them too, and no error in the README's examples."""
    uses = ROOT / "tests/typing/api.py"
    config = {"typeCheckingMode": "strict", "include": [str(planted), str(uses)],
              "extraPaths": [str(ROOT)], "reportUnusedExpression": False}  # fmt: skip
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(config))
    found = subprocess.run(
        [sys.executable, "-m", "pyright", "--outputjson", "--project", str(tmp_path),
         "--pythonpath", sys.executable],
        capture_output=True, text=True, cwd=tmp_path, check=False,
    )  # fmt: skip
    report = json.loads(found.stdout)["generalDiagnostics"]
    errors = {(item["file"], item["range"]["start"]["line"] + 1) for item in report}
    assert errors == {(str(planted), number) for number in range(5, 5 + len(PLANTED))}
