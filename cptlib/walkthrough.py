"""Run a notebook from the command line: show what it prints as it prints, then write it and a self-contained page."""

import os
import re
import time
from html import escape
from pathlib import Path
from typing import Any

from cptlib import hints, memory
from cptlib.errors import NotebookError

STYLE = "main { max-width: 64rem; margin: auto }"  # lines that the eye can follow on a wide screen
METADATA = ("kernelspec", "accelerator", "colab")  # what a notebook asks for: a kernel, and in Colab a GPU


def run(notebook: Path, folder: Path) -> Path:
    """Execute `notebook`; `folder` gets the executed notebook and its page, also where a cell failed. Returns the page.

    Raises NotebookError with the failed cell's own words.
    """
    import nbformat
    from nbclient.exceptions import CellExecutionError

    folder.mkdir(parents=True, exist_ok=True)
    content = nbformat.read(notebook, as_version=4)
    # the kernel works in `folder`, so that whatever the run writes lands there
    started = time.perf_counter()
    client = _echoing_client(started)(
        content,
        timeout=None,
        kernel_name="python3",
        coalesce_streams=True,  # streamed text stays running text
        resources={"metadata": {"path": str(folder)}},
        extra_arguments=["--IPKernelApp.log_level=ERROR"],
    )
    try:
        client.execute()
    except CellExecutionError as error:
        raise NotebookError(f"{notebook.name} stopped: {error.ename}: {error.evalue}") from None
    finally:
        tidy(content)
        content.metadata["run"] = _record(time.perf_counter() - started)
        nbformat.write(content, folder / notebook.name)
        page = folder / notebook.with_suffix(".html").name
        page.write_text(render(content, notebook.stem), encoding="utf-8")
    return page


def _echoing_client(started: float) -> Any:
    """nbclient's client, made to print each section's title, and the cells' text output as it arrives."""
    from nbclient import NotebookClient

    class EchoingClient(NotebookClient):
        async def async_execute_cell(self, cell, cell_index, *rest, **options):
            if cell.cell_type == "markdown" and cell.source.startswith("## "):
                done = f"{cell_index + 1} of {len(self.nb.cells)} cells, {time.perf_counter() - started:.0f} s"
                print(f"\n── {cell.source.splitlines()[0].removeprefix('## ')}   ({done})", flush=True)
            return await super().async_execute_cell(cell, cell_index, *rest, **options)

        def output(self, outs, msg, display_id, cell_index):
            if msg["msg_type"] == "stream" and msg["content"]["name"] == "stdout":
                print(msg["content"]["text"], end="", flush=True)
            return super().output(outs, msg, display_id, cell_index)

    return EchoingClient


def _record(seconds: float) -> dict[str, Any]:
    """What the site tells of a run: the device, how long it took, and the day."""
    gpu = memory.gpu_name()
    device = gpu or f"{os.cpu_count()} CPU cores, no GPU"
    if gpu and (gb := os.environ.get("CPTLIB_GPU_GB")):
        device += f", held to {gb} GB"
    return {"device": device, "seconds": round(seconds), "date": time.strftime("%Y-%m-%d")}


def tidy(content: "hints.NotebookNode") -> None:
    """Drop what a run leaves in a notebook besides its results: times of execution, warnings on stderr, and all metadata
    but METADATA."""
    for cell in content.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    content.metadata = {key: content.metadata[key] for key in METADATA if key in content.metadata}


def render(content: "hints.NotebookNode", title: str) -> str:
    """The notebook as one HTML page, its figures described in words, that asks no other machine for anything: no MathJax, no
    require.js."""
    from nbconvert import HTMLExporter

    exporter = HTMLExporter(mathjax_url="", require_js_url="", widget_renderer_url="")
    page = exporter.from_notebook_node(content, {"metadata": {"name": title}})[0]
    descriptions = iter(_descriptions(content))
    page = re.sub(r'alt="No description[^"]*"', lambda _: f'alt="{escape(next(descriptions, ""))}"', page)
    page = page.replace("</head>", f"<style>{STYLE}</style></head>", 1)
    return re.sub(r'<img [^>]*?alt="([^"]*)"[^>]*?src="https?:[^>]*>', r"\1", page)  # a badge becomes its words


def _descriptions(content: "hints.NotebookNode") -> list[str]:
    """What each figure of a notebook shows, in words: its plain text (see `style`)."""
    outputs = (output for cell in content.cells for output in cell.get("outputs", ()))
    return [output.data.get("text/plain", "") for output in outputs if "image/png" in output.get("data", {})]
