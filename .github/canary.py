"""For canary.yml: which packages it takes in their newest releases, and what it says when they break the tests.

python .github/canary.py names          every package of pyproject.toml, without its pin
python .github/canary.py report LOG     the text of an issue
"""

import sys
import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from packaging.requirements import Requirement

# Extras with unsloth, which is upgraded without what it asks for, and with a model's weights
APART = ("train", "no-deps")
TAIL = 40  # lines of the log's end


def requirements(project: dict) -> list[Requirement]:
    """Every requirement that holds on this machine, the project's own extras aside."""
    texts = [*project["dependencies"], *(text for extra in project["optional-dependencies"].values() for text in extra)]
    found = [Requirement(text) for text in texts]
    return [need for need in found if need.name != "cptlib" and (need.marker is None or need.marker.evaluate())]


def names(project: dict) -> list[str]:
    """What pip is asked to upgrade."""
    extras = {name: extra for name, extra in project["optional-dependencies"].items() if name not in APART}
    needs = requirements({**project, "optional-dependencies": extras})
    return sorted({f"{need.name}[{','.join(need.extras)}]" if need.extras else need.name for need in needs})


def installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def changed(project: dict, installed=installed) -> list[str]:
    """The packages whose version here is outside the pin."""
    lines = {
        f"{need.name} {found} (pinned: {need.specifier})"
        for need in requirements(project)
        if (found := installed(need.name)) and not need.specifier.contains(found, prereleases=True)
    }
    return sorted(lines)


def report(changed: list[str], log: str) -> str:
    """Markdown: the versions, the failures that pytest sums up, and the end of the log."""
    lines = log.splitlines()
    failures = [line for line in lines[:-TAIL] if line.startswith(("FAILED ", "ERROR "))]
    versions = [f"- {line}" for line in changed] or ["No version is outside its pin: without the canary they fail too."]
    parts = ["The tests fail with the newest releases. Versions outside pyproject.toml's pins:", "", *versions, ""]
    return "\n".join([*parts, "````text", *failures, *lines[-TAIL:], "````", ""])


if __name__ == "__main__":
    project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
    if sys.argv[1] == "names":
        print(*names(project))
    else:
        print(report(changed(project), Path(sys.argv[2]).read_text(encoding="utf-8", errors="replace")))
