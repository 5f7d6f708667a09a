"""The library's reference, a Sphinx extension: a page a module, written anew for each build, from its docstrings."""

import pkgutil
import re
import shutil
import sys
from pathlib import Path

import cptlib

# What a module has from another one is documented there alone, though its __all__ may list it
PAGE = """# cptlib.{0}

```{{eval-rst}}
.. automodule:: cptlib.{0}
   :members:
   :ignore-module-all:
```
"""


def modules() -> list[str]:
    """Every module's name below cptlib, as in documents.folder, less the commands: these are explained by their --help."""
    found = [module.name.removeprefix("cptlib.") for module in pkgutil.walk_packages(cptlib.__path__, "cptlib.")]
    return [name for name in found if not name.startswith(("__main__", "commands"))]


def write_pages(app) -> None:
    folder = Path(app.srcdir) / "api"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name in modules():
        (folder / f"{name}.md").write_text(PAGE.format(name), encoding="utf-8")


def list_fields(app, what, name, obj, options, lines: list[str]) -> None:
    """A dataclass's docstring explains its fields as `name: meaning`; here each becomes an item of a list."""
    fields = "|".join(getattr(obj, "__dataclass_fields__", ()))
    if what == "class" and fields:
        lines[:] = itemized(lines, re.compile(rf"(?:^|(?<=\. ))((?:(?:{fields}), )*(?:{fields})): "))


def itemized(lines: list[str], field: re.Pattern) -> list[str]:
    out, level = [], None  # level: the indentation of the list that we are in
    for line in lines:
        indent = line[: len(line) - len(line.lstrip())]
        text, *items = field.split(line.strip())
        if level is not None and line.strip() and indent != level:
            out, level = [*out, ""], None
        if text or not items:
            out.append(indent + "  " * (level is not None) + text)
        for names, meaning in zip(items[::2], items[1::2], strict=True):
            begins = level is None and not (indent and not out[-1].startswith(indent))  # not under a term, as its text
            out += [""] * begins + [f"{indent}- **{names}**: {meaning}"]
            level = indent
    return out


def setup(app) -> dict:
    for name in ("datasets", "peft", "torch", "transformers", "trl", "unsloth"):
        sys.modules[name] = None  # else sphinx-codeautolink loads them, to look for documentation that is not here
    app.connect("builder-inited", write_pages)
    app.connect("autodoc-process-docstring", list_fields)
    return {"parallel_read_safe": False}
