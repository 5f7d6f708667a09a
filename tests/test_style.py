"""The figures' style: applied to all of them and to nothing else, legible, and told in words."""

import inspect
from itertools import combinations
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy
import pytest
from matplotlib.colors import to_rgb

import cptlib
from cptlib import lora, style

# Machado, Oliveira and Fernandes (2009): what is seen without one of the three kinds of cones, for linear RGB
SEEN = {
    "all": numpy.eye(3),
    "without L": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "without M": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "without S": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def linear(color) -> numpy.ndarray:
    rgb = numpy.array(to_rgb(color))
    return numpy.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def lab(rgb: numpy.ndarray) -> numpy.ndarray:
    """CIE L*a*b*, in which a distance of 10 is plain to see."""
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    x, y, z = numpy.cbrt(numpy.clip(to_xyz @ rgb, 1e-6, None) / [0.9505, 1.0, 1.089])
    return numpy.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("eyes", SEEN)
def test_colours_are_told_apart_by_all_eyes(eyes):
    seen = [lab(SEEN[eyes] @ linear(style.color(number))) for number in range(7)]
    assert min(numpy.linalg.norm(a - b) for a, b in combinations(seen, 2)) > 10


def test_text_has_contrast():
    with matplotlib.style.context(style.NAME):
        for name in ("text.color", "axes.labelcolor", "xtick.labelcolor", "ytick.labelcolor"):
            luminance = linear(plt.rcParams[name]) @ [0.2126, 0.7152, 0.0722]
            assert 1.05 / (luminance + 0.05) > 7  # WCAG 2.2, level AAA


def test_every_plot_function_has_the_style_and_describes_its_figure():
    sources = [path.read_text() for path in Path(cptlib.__file__).parent.glob("*.py") if path.name != "style.py"]
    plots = sum(source.count("\ndef plot_") for source in sources)
    assert plots == sum(source.count("@style.styled\ndef plot_") for source in sources) > 0
    assert not [source for source in sources if "plt." in source]  # figures come from style.subplots


def test_nothing_else_is_changed():
    before = dict(matplotlib.rcParams)
    ax = lora.plot_scaling()
    assert dict(matplotlib.rcParams) == before
    assert ax.figure.dpi == 200 and not ax.spines["top"].get_visible()
    assert list(inspect.signature(lora.plot_scaling).parameters) == ["alpha", "rank", "ax"]


def test_the_axes_of_the_caller_are_used():
    mine = plt.figure().subplots()
    assert lora.plot_scaling(ax=mine) is mine


def test_a_figure_says_what_it_shows():
    text = repr(lora.plot_scaling(alpha=32, rank=128).figure)
    assert text == (
        "How the update is scaled as the rank grows: scaling factor s (no unit) over rank r. "
        "LoRA, 32 / r from 4 to 0.125; rsLoRA, 11.3 / √r from 4 to 0.707; r = 128."
    )


@pytest.mark.parametrize("draw", ["bar", "barh"])
def test_bars_are_told_by_their_names(draw):
    ax = style.subplots()
    getattr(ax, draw)(["cats", "dogs"], [3, 4.25], label="a day")
    ax.set_title("Meals", loc="left")
    assert style.describe(ax.figure) == "Meals. a day: cats 3, dogs 4.25."
