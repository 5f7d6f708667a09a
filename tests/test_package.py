"""What holds for the package as a whole: a light import, versions and the address kept in one place, honest arguments."""

import ast
import inspect
import os
import re
import subprocess
import sys
import tomllib
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import get_type_hints

import pytest
import yaml

import cptlib
from cptlib import lora, models, training
from cptlib.recipe import RECIPES

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)
FILES = sorted((ROOT / "cptlib").rglob("*.py"))
MODULES = [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in FILES]
HEAVY = {"torch", "transformers", "unsloth", "trl", "datasets", "matplotlib", "pandas"}


def test_importing_the_library_loads_nothing_heavy():
    imports = "; ".join(f"import {name}" for name in MODULES if not name.endswith(("__main__", "walkthrough")))
    code = f"import sys; import cptlib; {imports}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert HEAVY.isdisjoint(loaded)


def test_every_module_imports_from_a_wheel_in_an_empty_environment(tmp_path):
    """The wheel holds the sub-packages and the data, and a plain install is enough to import all of it."""
    quiet = ["-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = ["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", tmp_path, ROOT]
    subprocess.run([sys.executable, *quiet, *build], check=True, capture_output=True)
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / ("Scripts" if os.name == "nt" else "bin") / "python"
    [wheel] = tmp_path.glob("*.whl")
    subprocess.run([python, "-I", *quiet, "install", wheel], check=True, capture_output=True)
    code = "; ".join(
        [*(f"import {name}" for name in MODULES if not name.endswith("__main__")), "print(cptlib.__file__)"]
    )
    code += "; from cptlib.paths import DATA; print(len(list(DATA.iterdir())))"
    ended = subprocess.run([python, "-I", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    where, files = ended.stdout.split() or [ended.stderr, 0]
    assert str(tmp_path) in where and int(files) == len(list((ROOT / "cptlib" / "data").iterdir()))
    said = subprocess.run(
        [python, "-I", "-m", "cptlib", "train"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert said.returncode == 1 and "pip install 'cptlib[train]'" in said.stderr and "Traceback" not in said.stderr


def test_no_module_is_longer_than_300_lines_and_the_library_than_its_bound():
    lengths = {
        name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in zip(MODULES, FILES, strict=True)
    }
    assert [name for name, length in lengths.items() if length > 300] == []
    assert sum(lengths.values()) < 6700  # 6,500 once documents/ has its readers from libraries


def public(tree: ast.Module):
    """A module's public functions and classes, and the classes' public methods."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield node
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from (n for n in node.body if isinstance(n, ast.FunctionDef) and not n.name.startswith("_"))


@pytest.mark.parametrize("path", FILES, ids=MODULES)
def test_what_is_public_is_documented_with_the_errors_it_raises(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree)
    for node in public(tree):
        text = ast.get_docstring(node)
        assert text, f"{node.name} has no docstring"
        raised = [n.exc for n in ast.walk(node) if isinstance(n, ast.Raise) and isinstance(n.exc, ast.Call)]
        if isinstance(node, ast.FunctionDef):
            assert {ast.unparse(call.func).split(".")[-1] for call in raised} - set(
                re.findall(r"\w+", text)
            ) == set(), node.name


@pytest.mark.parametrize("path", FILES, ids=MODULES)
def test_what_is_public_has_hints(path):
    """On each parameter and on what is returned; `make lint` checks that they are true, this that they are there."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")]
    found = [node for scope in (tree, *classes) for node in scope.body if isinstance(node, FUNCTION)]
    for node in found:
        if node.name.startswith("_") and not node.name.startswith("__"):
            continue
        own = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs, node.args.vararg, node.args.kwarg]
        bare = [a.arg for a in own if a and a.annotation is None and a.arg not in ("self", "cls")]
        assert not bare and node.returns is not None, f"{node.name}: {', '.join(bare) or 'what it returns'}"


@pytest.mark.parametrize("name", [name for name in MODULES if not name.endswith("__main__")])
def test_hints_can_be_read_while_a_program_runs(name):
    """As documentation and command lines made from functions do."""
    module = import_module(name)
    for value in vars(module).values():
        if getattr(value, "__module__", None) == name and (inspect.isfunction(value) or inspect.isclass(value)):
            for read in [value, *(m for m in vars(value).values() if inspect.isfunction(m))]:
                get_type_hints(read)


def test_no_module_is_renamed_where_it_is_imported():
    """Names are chosen so that a user's variables do not collide with them."""
    for path in [*FILES, *(ROOT / "tests").glob("*.py"), *(ROOT / "notebooks").glob("*.py")]:
        assert not re.search(r"^\s*from cptlib import .*\bas\b", path.read_text(encoding="utf-8"), re.MULTILINE), path


def test_a_plain_install_is_light():
    assert {re.split("[><=]", need)[0] for need in PROJECT["dependencies"]} == {
        "cyclopts",
        "filelock",
        "matplotlib",
        "platformdirs",
        "psutil",
        "wcwidth",
    }


def test_environment_yml_installs_what_pyproject_says():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    names = [need for need in environment["dependencies"] if isinstance(need, str)]
    assert f"python{PROJECT['requires-python']}" in names
    [pip] = [need["pip"] for need in environment["dependencies"] if isinstance(need, dict)]
    assert pip == ["-e .[train,documents,dev]"]  # no version of its own
    assert {"train", "documents", "dev"} <= PROJECT["optional-dependencies"].keys()


def test_the_version_stands_in_one_place_and_the_citation_follows():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert PROJECT["dynamic"] == ["version"] and citation["version"] == cptlib.__version__


def test_unsloth_is_pinned_alike_with_and_without_a_gpu():
    extras = PROJECT["optional-dependencies"]
    assert set(extras["train"][1:]) == {need for need in extras["no-deps"] if need.startswith("unsloth")}


def test_the_repository_address_is_the_same_everywhere():
    address = PROJECT["urls"]["Repository"].removeprefix("https://github.com/")
    for path in [ROOT / "README.md", *(ROOT / "notebooks").glob("*.py")]:
        found = set(re.findall(r"github(?:\.com)?/(?!unslothai|huggingface|rasbt)([\w-]+/[\w-]+)", path.read_text()))
        assert found <= {address}, path


def parameters(source: Path, function: str, of: str | None = None) -> set[str]:
    """Names of a function's parameters, read from its source: the GPU classes do not import without a GPU."""
    tree = ast.parse(source.read_text(encoding="utf-8"))
    scopes = (
        [tree] if of is None else [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == of]
    )
    [found] = [n for scope in scopes for n in scope.body if isinstance(n, ast.FunctionDef) and n.name == function]
    return {argument.arg for argument in [*found.args.args, *found.args.kwonlyargs]}


PACKAGES = Path(find_spec("unsloth").origin).parent
CPU_LOADER = PACKAGES.parent / "unsloth_zoo" / "cpu" / "loader.py"


@pytest.fixture
def recipe(smoke):
    return replace(smoke, dtype="float32")


def test_loading_passes_only_arguments_that_exist(recipe):
    passed = models.load_arguments(recipe).keys() - {"use_safetensors"}  # goes on to transformers
    assert passed <= parameters(PACKAGES / "models" / "loader.py", "from_pretrained", "FastLanguageModel")
    assert passed <= parameters(CPU_LOADER, "from_pretrained", "FastCPUModel")
    from transformers import PreTrainedModel

    assert "use_safetensors" in inspect.signature(PreTrainedModel.from_pretrained).parameters


def test_adapters_are_asked_for_only_with_arguments_that_exist(recipe):
    passed = lora.adapter_arguments(recipe).keys()
    assert passed <= parameters(PACKAGES / "models" / "llama.py", "get_peft_model", "FastLlamaModel")
    from peft import LoraConfig

    cpu = parameters(CPU_LOADER, "get_peft_model", "FastCPUModel") | inspect.signature(LoraConfig).parameters.keys()
    assert passed <= cpu


@pytest.mark.parametrize("name", RECIPES)
def test_training_passes_only_arguments_that_exist(name):
    from trl import SFTConfig
    from unsloth import UnslothTrainingArguments

    passed = training.training_arguments(replace(RECIPES[name], dtype="float32")).keys()
    own = inspect.signature(UnslothTrainingArguments.__init__).parameters
    assert passed <= own.keys() | SFTConfig.__dataclass_fields__.keys()
    assert "embedding_learning_rate" in own


def keywords(tree: ast.AST, function: str) -> set[str]:
    """Keyword arguments of the one call of `function` in a notebook."""
    [call] = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and ast.unparse(n.func).endswith(function)]
    return {keyword.arg for keyword in call.keywords}


def test_the_notebook_shows_the_calls_that_the_library_makes(recipe):
    tree = ast.parse((ROOT / "notebooks" / "01_continued_pretraining.py").read_text())
    assert keywords(tree, "from_pretrained") == models.load_arguments(recipe).keys()
    assert keywords(tree, "get_peft_model") == lora.adapter_arguments(recipe).keys()
