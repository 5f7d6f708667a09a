"""A saved model behind an OpenAI-compatible server, `transformers serve`, for as long as a block of code runs."""

import importlib.util
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cptlib.errors import ServingError

GRACE = 10  # seconds that a server has to finish its answers when it is told to end


@contextmanager
def serve(folder: str | Path, patience: float = 300) -> Iterator[str]:
    """Serve the whole model in `folder` on this machine alone; gives the address for a client's `base_url`.

    Raises ServingError where a package is missing, or with the server's last line where it ends or takes longer than
    `patience` seconds to come up.
    """
    missing = [name for name in ("fastapi", "uvicorn", "openai") if importlib.util.find_spec(name) is None]
    if missing:
        raise ServingError(f"The server needs {', '.join(missing)}. Run: pip install 'transformers[serving]'")
    port = _free_port()
    program = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(folder)]
    options = ["--host", "127.0.0.1", "--port", str(port)]
    log = Path(f"{Path(folder)}.server.log")
    with log.open("w", encoding="utf-8") as output:
        server = subprocess.Popen([*program, *options], stdout=output, stderr=output)
        try:
            _wait(server, f"http://127.0.0.1:{port}", time.monotonic() + patience, log)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            _end(server)


def _end(server: subprocess.Popen) -> None:
    server.terminate()
    try:
        server.wait(GRACE)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _wait(server: subprocess.Popen[bytes], address: str, until: float, log: Path) -> None:
    """Return when the server says that it is well; ServingError with its last line if it will not."""
    while server.poll() is None and time.monotonic() < until:
        try:
            with urllib.request.urlopen(f"{address}/health", timeout=5):
                return
        except OSError:
            time.sleep(0.2)
    said = (log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["nothing"])[-1]
    raise ServingError(f"The server did not come up; its last words: {said} (all of them: {log})")
