"""The figures' one style, and their descriptions in words.

The look is in `quiet.mplstyle`. A figure made by `subplots` describes itself: in a notebook its description is the
output's plain text, and a page shows it as the image's alternative text.
"""

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from cptlib import hints

P = ParamSpec("P")
Drawn = TypeVar("Drawn")
NAME = "cptlib.quiet"


def styled(plot: Callable[P, Drawn]) -> Callable[P, Drawn]:
    """Decorator of a plot function: what it draws has the project's style, and nothing else is changed."""

    @functools.wraps(plot)
    def draw(*args: P.args, **kwargs: P.kwargs) -> Drawn:
        import matplotlib.style

        with matplotlib.style.context(NAME):
            drawn = plot(*args, **kwargs)
            interactive = matplotlib.is_interactive()
        matplotlib.interactive(interactive)  # a notebook's first figure turns this on, and the context would undo it
        return drawn

    return draw


@styled
def subplots(rows: int = 1, columns: int = 1, size: tuple[float, float] = (6, 3.8), **kwargs: Any) -> Any:
    """New Axes (an array of them where there are several) in a figure that describes itself.

    size: width and height in inches; beyond 7 the text gets small on a page. Others: as in `Figure.subplots`.
    """
    import matplotlib.pyplot as plt

    return plt.figure(figsize=size, FigureClass=_described()).subplots(rows, columns, **kwargs)


@styled
def color(number: int) -> str:
    """The style's colour of that number, as "#0072B2"; they begin again after the seventh.

    matplotlib's own "C0" would be looked up when the figure is drawn, in whatever style holds then.
    """
    import matplotlib

    colors: list[str] = matplotlib.rcParams["axes.prop_cycle"].by_key()["color"]
    return colors[number % len(colors)]


@functools.cache
def _described() -> "type[hints.Figure]":
    from matplotlib.figure import Figure

    class DescribedFigure(Figure):
        """A Figure whose plain text is its description."""

        def __repr__(self) -> str:
            return describe(self)

    return DescribedFigure


def describe(figure: "hints.Figure") -> str:
    """A figure in words: each Axes' title and labels, where each line begins and ends, each bar's height."""
    return " ".join(_describe(ax) for ax in figure.axes if ax.get_visible())


def _describe(ax: "hints.Axes") -> str:
    title = ax.get_title(loc="left") or ax.get_title()
    axes = " over ".join(label for label in (ax.get_ylabel(), ax.get_xlabel()) if label)
    series = [*map(_line, _labelled(ax.lines)), *(_series(some, ax) for some in _labelled(ax.containers))]
    sentences = [": ".join(part for part in (title, axes) if part), "; ".join(series)]
    return " ".join(f"{sentence}." for sentence in sentences if sentence).replace("\n", " ")


def _labelled(artists: Any) -> list[Any]:
    return [artist for artist in artists if not str(artist.get_label()).startswith("_")]


def _line(line: Any) -> str:
    xs, ys = (list(map(float, data)) for data in line.get_data())
    if len(ys) < 2 or xs[0] == xs[-1] or ys[0] == ys[-1]:  # a mark; its label says what it marks
        return _label(line)
    return f"{_label(line)} from {ys[0]:.3g} to {ys[-1]:.3g}"


def _series(container: Any, ax: "hints.Axes") -> str:
    """The bars of one label, each with its tick's name where every bar has one."""
    heights = [f"{value:.3g}" for value in getattr(container, "datavalues", ())]
    axis = ax.xaxis if getattr(container, "orientation", "vertical") == "vertical" else ax.yaxis
    names = [tick.get_text() for tick in axis.get_ticklabels()]
    if not heights or not any(names):
        return _label(container)
    if len(names) == len(heights):
        heights = [f"{name} {height}" for name, height in zip(names, heights, strict=True)]
    return f"{_label(container)}: {', '.join(heights)}"


def _label(artist: Any) -> str:
    return " ".join(artist.get_label().split())
