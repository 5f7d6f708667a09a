"""What `bench` measured, read: tables, figures, and the measurements that are kept beside the notebooks."""

import json
import statistics
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cptlib import estimate, hints, style
from cptlib.recipe import SHAPE, Recipe
from cptlib.weights import config_of


def save(result: dict[str, Any], folder: Path, kind: str = "bench") -> Path:
    """Write `result` as <kind>-<device>.json into `folder`; returns the file."""
    folder.mkdir(parents=True, exist_ok=True)
    device = "-".join(result["device"].lower().replace("nvidia", "").split())
    file = folder / f"{kind}-{device}.json"
    file.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return file


def summary(result: dict[str, Any], file: Path) -> str:
    """Draw the figure of `result` beside `file`, its JSON; returns the table, or the times to a loss, as text."""
    if all("error" in row for row in result["rows"]):
        return f"Nothing could be measured: {file}"
    curves = any("curve" in row for row in result["rows"])
    drawn: Any = (plot_curves if curves else plot_speed)(result)
    drawn.figure.savefig(file.with_suffix(".png"), dpi=120)
    numbers = time_to_loss(result) if curves else table(result).to_string()
    weights = f"random weights of the shape {result['shape']}" if result["shape"] else "the recipes' own weights"
    return f"{numbers}\n{result['device']}, {weights}: {file}"


def table(result: dict[str, Any]) -> "hints.DataFrame":
    """A `pandas.DataFrame`, a row a recipe. Medians of its rounds: tokens/s, s a step, tokens a step, utilisation in percent of
    the ceiling; every round's tokens/s; the most of any round: memory by nvidia-smi and torch's peaks, in GB."""
    import pandas

    recipes = _by_recipe(result, "tokens_per_second")
    return pandas.DataFrame.from_dict({text: _line(rows) for text, rows in recipes.items()}, orient="index")


def _line(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """A table's line of one recipe's rounds."""

    def middle(name: str) -> float:
        return statistics.median(row[name] for row in rows)

    def most(values: Iterable[float]) -> float:  # of those that are known
        return round(max(values, default=float("nan")), 1)

    def by_torch(name: str) -> float:
        return most(row["torch_gb"][name] for row in rows if name in row["torch_gb"])

    return {
        "tokens/s": round(middle("tokens_per_second")),
        "rounds": " ".join(f"{row['tokens_per_second']:,.0f}" for row in rows),
        "s/step": round(middle("seconds_per_step"), 3),
        "tokens/step": round(middle("tokens_per_step")),
        "GB, nvidia-smi": most(row["memory_gb"] for row in rows if "memory_gb" in row),
        "GB, torch reserved": by_torch("peak reserved"),
        "GB, torch allocated": by_torch("peak allocated"),
        "utilisation %": round(100 * middle("utilisation"), 1),
    }


def _by_recipe(result: dict[str, Any], key: str) -> dict[str, list[dict[str, Any]]]:
    rows = [row for row in result["rows"] if key in row]
    texts = dict.fromkeys(row["recipe"] for row in rows)
    return {text: [row for row in rows if row["recipe"] == text] for text in texts}


def _labels(texts: Iterable[str]) -> dict[str, str]:
    """Recipes by their texts, without the changes that all of them share."""
    parts = {text: text.split(",") for text in texts}
    shared = set.intersection(*(set(changes) for _, *changes in parts.values()))
    return {text: ", ".join(part for part in some if part not in shared) for text, some in parts.items()}


def seconds_to(curve: list[dict[str, Any]], loss: float) -> float | None:
    """The seconds of training at a curve's first point at `loss` or below; None where it never gets there."""
    return next((point["seconds"] for point in curve if point["loss"] <= loss), None)


@style.styled
def plot_speed(result: dict[str, Any], ax: "hints.Axes | None" = None) -> "hints.Axes":
    """Tokens a second of each recipe, a bar each, with its memory written beside it."""
    ax = ax or style.subplots(size=(7, 3.6))
    numbers = table(result).iloc[::-1]
    bars = ax.barh(list(numbers.index), numbers["tokens/s"], color=style.color(0), label="tokens/s")
    pairs = zip(numbers["tokens/s"], numbers["GB, nvidia-smi"], strict=True)
    notes = [f"{rate:,} tokens/s, {gb:.1f} GB" for rate, gb in pairs]
    ax.bar_label(bars, notes, padding=4)
    ax.set(title=f"Training speed, {result['device']}", xlabel="real tokens per second", ylabel="recipe")
    ax.margins(x=0.6)
    ax.grid(visible=False, axis="y")
    return ax


@style.styled
def plot_curves(result: dict[str, Any], ax: "hints.Axes | None" = None) -> "hints.Axes":
    """Held-out loss over seconds of training, a line a recipe."""
    ax = ax or style.subplots(size=(7, 3.6))
    curves = _by_recipe(result, "curve")
    for text, label in _labels(curves).items():
        curve = curves[text][0]["curve"]
        ax.plot([p["seconds"] for p in curve], [p["loss"] for p in curve], marker=".", label=textwrap.fill(label, 30))
    ax.set(
        title=f"Time to a loss, {result['device']}",
        xlabel="seconds of training",
        ylabel="held-out loss (nats per token)",
    )
    ax.set_xscale("symlog", linthresh=1)
    ax.xaxis.set_major_formatter("{x:g}")
    ax.grid(alpha=0.3)
    ax.legend()
    return ax


def compare(rows: dict[str, dict[str, Any]]) -> "hints.DataFrame":
    """A `pandas.DataFrame` of measurements by name: tokens/s, s a step, and the peaks in GB (on a CPU the memory held)."""
    import pandas

    columns = {}
    for name, row in rows.items():
        columns[name] = {
            "tokens/s": round(row["tokens_per_second"]),
            "s/step": round(row["seconds_per_step"], 3),
            "peak GB, nvidia-smi" if row["torch_gb"] else "GB": round(row["memory_gb"], 2),
            **({"peak GB, torch": round(row["torch_gb"]["peak allocated"], 2)} if row["torch_gb"] else {}),
        }
    return pandas.DataFrame.from_dict(columns, orient="index")


def only_memory(table: "hints.DataFrame") -> "hints.DataFrame":
    """A table's columns in GB, for where its speeds are not known."""
    return table[[column for column in table if "GB" in str(column)]]


def predicted_and_measured(rows: list[dict[str, Any]]) -> "hints.DataFrame":
    """A `pandas.DataFrame`, a row a committed measurement of memory: its settings, GB predicted and measured, error in %."""
    import pandas

    lines = []
    for row in rows:
        recipe = Recipe(**row["settings"])
        predicted = estimate.estimate(recipe, config_of(recipe.model), row["row"]).gb
        lines.append(
            {
                "model": recipe.model.removeprefix(SHAPE),
                "bits": 4 if recipe.load_in_4bit else 16,
                "rank": recipe.rank,
                "rows": f"{recipe.micro_batch} × {recipe.max_length}"
                + f" × {recipe.accumulation}" * (recipe.accumulation > 1),
                "checkpointing": str(recipe.gradient_checkpointing),
                "optimizer": recipe.optimizer,
                "embeddings": recipe.train_embeddings,
                "predicted GB": round(predicted, 2),
                "measured GB": round(row["gb"], 2),
                "error %": round(100 * (predicted / row["gb"] - 1), 1),
            }
        )
    return pandas.DataFrame(lines)


def time_to_loss(result: dict[str, Any]) -> str:
    """How long each curve of `result` took to the loss at which its first one ended."""
    rows = [row for row in result["rows"] if "curve" in row]
    labels = _labels(row["recipe"] for row in rows)
    last = rows[0]["curve"][-1]
    lines = [f"{labels[rows[0]['recipe']]}: {last['loss']:.3f} nats a token after {last['seconds']:.0f} s"]
    for row in rows[1:]:
        seconds = seconds_to(row["curve"], last["loss"])
        share = f"{seconds:.0f} s, 1/{last['seconds'] / seconds:.1f} of that, at the latest" if seconds else "never"
        lines.append(f"{labels[row['recipe']]}: that loss after {share}; {row['curve'][-1]['loss']:.3f} at the end")
    return "\n".join(lines)


def committed(name: str) -> dict[str, Any]:
    """What notebooks/measured/<name>.json holds: of this checkout, or of the repository where the package stands alone."""
    path = Path(__file__).parent.parent.parent / "notebooks" / "measured" / f"{name}.json"
    if path.is_file():
        return json.loads(path.read_text(encoding="utf-8"))
    from importlib.metadata import metadata
    from urllib.request import urlopen

    [home] = [
        url.split(", ")[1] for url in metadata("cptlib").get_all("Project-URL", []) if url.startswith("Repository")
    ]
    raw = home.replace("github.com", "raw.githubusercontent.com")
    with urlopen(f"{raw}/main/notebooks/measured/{name}.json", timeout=30) as answer:
        return json.load(answer)
