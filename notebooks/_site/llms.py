"""llms.txt (https://llmstxt.org), a Sphinx extension: what a language model should read of the site, in one short file."""

from pathlib import Path

from posts import page_context


def write(app, exception) -> None:
    if exception is None and app.builder.format == "html":
        context = page_context(app) | {"address": app.config.html_baseurl, "summary": app.config.feed_description}
        text = app.builder.templates.render("llms.txt", context)
        (Path(app.outdir) / "llms.txt").write_text(text, encoding="utf-8")


def setup(app) -> dict:
    app.connect("build-finished", write)
    return {"parallel_read_safe": True}
