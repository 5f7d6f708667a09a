"""Notebooks as posts: a Sphinx extension that reads them as committed and shows them as pages of a blog.

Pages in Markdown are Jinja templates: `{{ found("01", "took ([0-9]+) s") }}` is what a notebook's output says, and
`{{ cell("01", "preflight(") }}` a link to the one cell that has those words, so neither can disagree with the notebook.
"""

import ast
import hashlib
import re
import textwrap
from base64 import b64decode
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from html import escape
from itertools import takewhile
from pathlib import Path

import nbformat
from docutils import nodes
from reference import modules
from sphinx.errors import ExtensionError
from sphinx.util import logging

logger = logging.getLogger(__name__)
WORDS_A_MINUTE = 220
BADGE = re.compile(r"^\[!\[Open in Colab\].*$", re.MULTILINE)


@dataclass(frozen=True)
class Post:
    """A notebook: its file, and the address of the repository that holds it."""

    path: Path
    repository: str

    @cached_property
    def notebook(self):
        return nbformat.read(self.path, as_version=4)

    @property
    def number(self) -> str:
        return self.path.stem[:2]

    @property
    def title(self) -> str:
        return self.notebook.cells[0].source.splitlines()[0].removeprefix("# ")

    @property
    def summary(self) -> str:
        """The first paragraph, its links as plain words."""
        paragraphs = BADGE.sub("", self.notebook.cells[0].source).split("\n\n")[1:]
        first = next(" ".join(text.split()) for text in paragraphs if text.strip())
        return re.sub(r"\[([^]]+)\]\([^)]+\)", r"\1", first)

    @property
    def minutes(self) -> int:
        words = sum(len(cell.source.split()) for cell in self.notebook.cells)
        return max(round(words / WORDS_A_MINUTE), 1)

    @property
    def run(self) -> dict:
        """Where and when the outputs were made, as `python -m cptlib run` notes it; empty where it has not."""
        return self.notebook.metadata.get("run", {})

    @property
    def facts(self) -> list[str]:
        facts = [f"{self.minutes} min read"]
        if self.run:
            facts += [f"run on {self.run['device']}", f"in {duration(self.run['seconds'])}"]
            facts += [f"{date.fromisoformat(self.run['date']):%-d %B %Y}"]
        return facts

    @property
    def colab(self) -> str:
        colab = self.repository.replace("github.com", "colab.research.google.com/github")
        return f"{colab}/blob/main/notebooks/{self.path.name}"

    @property
    def script(self) -> str:
        return f"{self.repository}/blob/main/notebooks/{self.path.stem}.py"

    @property
    def page(self) -> str:
        return f"{self.path.stem}.html"

    @property
    def text(self) -> str:
        """All that the cells print."""
        outputs = [output for cell in self.notebook.cells for output in cell.get("outputs", ())]
        return "\n".join(output.get("text") or output.get("data", {}).get("text/plain", "") for output in outputs)

    @property
    def figures(self) -> dict[str, tuple[str, int]]:
        """Description and width in CSS pixels (half its dots) of each figure, by the hash that myst-nb names it by."""
        found = {}
        for output in (output for cell in self.notebook.cells for output in cell.get("outputs", ())):
            if "image/png" in output.get("data", {}):
                image = b64decode(output.data["image/png"])
                found[hashlib.sha256(image).hexdigest()] = (
                    output.data["text/plain"],
                    int.from_bytes(image[16:20]) // 2,
                )
        return found


def duration(seconds: int) -> str:
    return f"{seconds} s" if seconds < 90 else f"{round(seconds / 60)} min"


def all_posts(app) -> dict[str, Post]:
    paths = sorted(Path(app.srcdir).glob("[0-9]*.ipynb"))
    return {path.stem[:2]: Post(path, app.config.html_theme_options["source_repository"]) for path in paths}


# Reading a source


def on_source_read(app, docname: str, source: list[str]) -> None:
    path = Path(app.env.doc2path(docname))
    if path.suffix == ".ipynb":
        source[0] = nbformat.writes(prepared(app, app.posts[path.stem[:2]]))
    elif "api/" not in docname:
        source[0] = app.builder.templates.render_string(source[0], page_context(app))


def prepared(app, post: Post):
    """The notebook as the site shows it: with a head, links that stay on the site, and plumbing folded."""
    notebook = nbformat.from_dict(post.notebook)
    notebook.metadata["language_info"] = {"name": "python", "pygments_lexer": "python"}
    if post.run:
        notebook.metadata["date"] = post.run["date"]
    title, _, rest = BADGE.sub("", notebook.cells[0].source).partition("\n")
    head = app.builder.templates.render("post-head.html", {"post": post})
    notebook.cells[0].source = f"{title}\n\n{head}\n\n{rest.strip()}"
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = link_within(cell.source, post.repository)
        elif is_plumbing(cell):
            cell.metadata["tags"] = [*cell.metadata.get("tags", ()), "hide-input"]
    return notebook


def link_within(text: str, repository: str) -> str:
    """Links to the library's modules and to other notebooks on GitHub lead to their pages here."""
    blob = re.escape(f"{repository}/blob/main/")
    text = re.sub(rf"\({blob}cptlib/([\w/]+)\.py\)", lambda link: f"(api/{link[1].replace('/', '.')}.md)", text)
    return re.sub(rf"\({blob}notebooks/(\w+\.ipynb)\)", r"(\1)", text)


def is_plumbing(cell) -> bool:
    """Tagged so, or nothing but imports, or the cell that installs in Colab."""
    body = ast.parse(cell.source).body
    return (
        "plumbing" in cell.metadata.get("tags", ())
        or "google.colab" in cell.source
        or all(isinstance(statement, (ast.Import, ast.ImportFrom)) for statement in body)
    )


def page_context(app) -> dict:
    return {
        "posts": list(app.posts.values()),
        "modules": modules(),
        "repository": app.config.html_theme_options["source_repository"],
        "found": lambda number, pattern: found(app.posts[number], pattern),
        "cell": lambda number, words: cell_link(app.posts[number], words),
        "figure": lambda number, words: figure(app, app.posts[number], words),
        "samples": samples,
        "shorten": textwrap.shorten,
        "duration": duration,
    }


def found(post: Post, pattern: str) -> str:
    """The first group of `pattern` in what the notebook printed."""
    match = re.search(pattern, post.text, re.DOTALL)
    if not match:
        raise ExtensionError(
            f"{post.path.name} prints nothing like {pattern!r}: run it again, or mend the page that asks."
        )
    return match[1]


def samples(post: Post, characters: int = 400) -> dict[str, str]:
    """The prompt, and how the text before and after training goes on from it; cut to about so many characters."""
    texts = [found(post, "BEFORE: (.*?) …\n"), found(post, "AFTER: (.*?)\n+Held-out")]
    before, after = (textwrap.shorten(text, characters, placeholder=" …") for text in texts)
    alike = takewhile(lambda pair: pair[0] == pair[1], zip(before.split(), after.split(), strict=False))
    prompt = " ".join(word for word, _ in alike)
    return {"prompt": prompt, "before": before[len(prompt) :].strip(), "after": after[len(prompt) :].strip()}


def cell_link(post: Post, words: str) -> str:
    """A link to the one code cell with those words, named by its section."""
    section, places = "", []
    for cell in post.notebook.cells:
        if cell.cell_type == "markdown":
            section = (re.findall(r"^## (\d+)\.", cell.source, re.MULTILINE) or [section])[-1]
        elif words in cell.source:
            places.append((section, cell.execution_count))
    if len(places) != 1:
        raise ExtensionError(
            f"{words!r} is in {len(places)} code cells of {post.path.name}; it must be in exactly one."
        )
    [(section, count)] = places
    where = f"section {section}, cell {count}" if section else f"cell {count}"
    return f'<a href="{post.page}#cell-{count}">notebook {post.number}, {where}</a>'


def figure(app, post: Post, words: str) -> str:
    """An <img> of the one figure whose description begins with those words; the file lies beside the pages."""
    places = [(name, text, width) for name, (text, width) in post.figures.items() if text.startswith(words)]
    if len(places) != 1:
        raise ExtensionError(
            f"{len(places)} figures of {post.path.name} are called {words!r}; there must be exactly one."
        )
    [(name, text, width)] = places
    return f'<img class="figure" src="_images/{name}.png" alt="{escape(text)}" width="{width}" loading="lazy">'


# The tree of a page that was read


def on_doctree_read(app, doctree) -> None:
    post = app.posts.get(app.env.docname[:2])
    if post:
        number_cells(doctree, post)
    for image in doctree.findall(nodes.image):
        if post and (known := post.figures.get(Path(image["uri"]).stem)):
            image["alt"], image["width"] = known[0], f"{known[1]}px"
            image["classes"].append("figure")
        if not image.get("alt") or image["alt"].startswith("<Figure"):
            logger.warning("a figure without a description: draw it on cptlib.style.subplots()", location=image)


def number_cells(doctree, post: Post) -> None:
    """An anchor for each code cell: #cell-3 for the one that ran as In [3]."""
    counts = [cell.execution_count for cell in post.notebook.cells if cell.cell_type == "code"]
    cells = [node for node in doctree.findall(nodes.container) if node.get("nb_element") == "cell_code"]
    for cell, count in zip(cells, counts, strict=True):
        cell["ids"].append(f"cell-{count}")


def setup(app) -> dict:
    app.posts = all_posts(app)
    app.connect("source-read", on_source_read)
    app.connect("doctree-read", on_doctree_read)
    return {"parallel_read_safe": False}
