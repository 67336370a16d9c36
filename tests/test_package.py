"""What must hold for the package and the repository as a whole."""

import importlib
import inspect
import json
import os
import pkgutil
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import UnionType
from typing import get_args, get_origin

import pytest
import typed_caller

import upconv
import upconv.book

ROOT = Path(__file__).parents[1]
MODULES = [
    module.name
    for package in (upconv, upconv.book)
    for module in pkgutil.iter_modules(package.__path__, package.__name__ + ".")
]
PUBLIC = [
    (module, name)
    for module in ["upconv", *MODULES]
    if not module.rpartition(".")[2].startswith("_")
    if module != "upconv.kernel" or importlib.util.find_spec("triton")  # which it needs
    for name in getattr(importlib.import_module(module), "__all__", [])
]


def in_a_new_python(code):
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


def test_code_is_no_package_and_the_standard_librarys_code_stays_visible():
    assert not (ROOT / "code" / "__init__.py").exists()
    assert hasattr(importlib.import_module("code"), "InteractiveConsole")


@pytest.mark.slow
def test_importing_upconv_needs_torch_alone():
    loaded = json.loads(in_a_new_python("import json, sys, upconv; print(json.dumps(sorted(sys.modules)))"))
    assert "upconv.arithmetic" in loaded
    for name in ("matplotlib", "pooch", "ipywidgets", "IPython", "skimage", "sklearn", "upconv.book"):
        assert name not in loaded


def test_every_module_says_what_it_offers():
    modules = [name for name in MODULES if name != "upconv.book"]
    assert "upconv.arithmetic" in modules
    for name in modules:
        module = importlib.import_module(name)
        assert module.__doc__, name
        assert list(module.__all__) == sorted(module.__all__, key=lambda n: (not n.isupper(), n[0].islower(), n)), name


@pytest.mark.parametrize("module, name", PUBLIC)
def test_every_public_function_and_class_says_its_arguments(module, name):
    thing = getattr(importlib.import_module(module), name)
    if not (inspect.isfunction(thing) or inspect.isclass(thing)):
        return
    text = inspect.getdoc(thing) or ""
    assert len(text.splitlines()[0]) > 20
    if inspect.isfunction(thing):
        section = text.partition("Parameters\n")[2].partition("\nReturns")[0]
        for argument in inspect.signature(thing).parameters:
            assert re.search(rf"\b{argument}\b", section), f"{name}: {argument} is not described"


@pytest.mark.parametrize("module, name", [(m, n) for m, n in PUBLIC if not m.startswith("upconv.book")])
def test_every_public_signature_is_annotated(module, name):
    thing = getattr(importlib.import_module(module), name)
    functions = [thing] if inspect.isfunction(thing) else []
    if inspect.isclass(thing):
        own = [f for f in vars(thing).items() if inspect.isfunction(f[1])]
        functions = [function for key, function in own if key == "__init__" or key[0] != "_"]
        assert functions or thing.__annotations__
    for function in functions:
        signature = inspect.signature(function)
        assert signature.return_annotation is not signature.empty
        given = [p for key, p in signature.parameters.items() if key != "self"]
        assert all(parameter.annotation is not parameter.empty for parameter in given)


@pytest.mark.slow
def test_a_type_checker_passes_a_users_program_and_finds_its_mistakes():
    checker = [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", "--cache-dir=.pytest_cache/mypy"]
    environment = {**os.environ, "MYPYPATH": "code"}
    run = [*checker, "tests/typed_caller.py"]
    found = subprocess.run(run, check=False, capture_output=True, text=True, cwd=ROOT, env=environment)
    assert found.returncode == 0, found.stdout + found.stderr


@pytest.mark.parametrize("part", [typed_caller.sizes, typed_caller.layers, typed_caller.models])
def test_what_the_users_program_says_of_the_types_holds_when_it_runs(part, monkeypatch):
    checked = []

    def is_of(value, kind):
        kinds, parts = get_origin(kind) or kind, get_args(kind)
        if kinds is tuple:
            parts = parts[:1] * len(value) if parts[1:] == (...,) else parts
            return isinstance(value, tuple) and all(map(is_of, value, parts))
        return any(is_of(value, part) for part in parts) if kinds is UnionType else isinstance(value, kinds)

    monkeypatch.setattr(typed_caller, "assert_type", lambda value, kind: checked.append(is_of(value, kind)))
    part()
    assert checked and all(checked)


def test_the_package_tells_checkers_that_it_is_typed():
    assert (Path(upconv.__file__).parent / "py.typed").read_text() == ""
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert "py.typed" in setuptools["package-data"]["upconv"]


def pinned(name):
    """The lines of a layer of requirements, without the one that names the other layer."""
    lines = (ROOT / name).read_text().splitlines()
    return [line for line in lines if line and line[0] != "#" and line != "-r requirements-site.txt"]


def test_requirements_pin_every_line_once_and_cover_what_the_package_needs():
    lines = [*pinned("requirements-site.txt"), *pinned("requirements.txt")]
    assert "-r requirements-site.txt" in (ROOT / "requirements.txt").read_text().splitlines()
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==[\w.]+( ; platform_system == \"Linux\")?", line) for line in lines)
    names = [line.partition("==")[0].lower().replace("_", "-") for line in lines]
    assert len(set(names)) == len(names)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["book"]]
    assert {re.match(r"[\w-]+", line)[0] for line in wanted} <= set(names)


def test_building_the_site_needs_no_torch():
    heavy = {"torch", "numpy", "pandas", "matplotlib", "scipy"}
    assert not heavy & {line.partition("==")[0] for line in pinned("requirements-site.txt")}


def test_the_oldest_versions_tested_are_the_oldest_allowed():
    lines = [line for line in (ROOT / "tests" / "oldest.txt").read_text().splitlines() if line and line[0] != "#"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    allowed = [*project["dependencies"], *project["optional-dependencies"]["book"]]
    assert all(re.fullmatch(r"[\w-]+>=[\d.]+", line) for line in allowed)
    assert sorted(lines) == sorted(line.replace(">=", "==") for line in allowed)


@pytest.mark.parametrize("name", ["requirements-site.txt", "requirements.txt"])
def test_contributing_gives_a_reason_for_every_direct_dependency(name):
    first_group = (ROOT / name).read_text().split("\n\n")[1]
    direct = [line.partition("==")[0] for line in first_group.splitlines() if "==" in line]
    table = (ROOT / "CONTRIBUTING.md").read_text().partition("Why each dependency")[2]
    assert len(direct) > 5
    assert [name for name in direct if not re.search(rf"^\|[^|]*\b{re.escape(name)}\b", table, re.MULTILINE)] == []


def test_the_version_is_the_same_everywhere():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert re.search(rf"^version: {re.escape(version)}$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)


@pytest.mark.slow
def test_the_readmes_example_prints_what_it_says():
    text = (ROOT / "README.md").read_text()
    code = "\n".join(re.findall(r"^>>> (.*)$", text, re.MULTILINE))
    *statements, last = code.splitlines()
    printed = in_a_new_python("\n".join([*statements, f"print({last})"]))
    assert printed.strip() in text


def test_the_page_on_running_names_what_the_chapters_need():
    text = (ROOT / "chapters" / "running.md").read_text()
    named = set(re.search(r"^pip install (.*)$", text, re.MULTILINE)[1].split())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["book"]]
    assert named == {re.match(r"[\w-]+", line)[0] for line in wanted}
    requires = project["requires-python"].removeprefix(">=")
    assert f"Python {requires} or newer" in text
