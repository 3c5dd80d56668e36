"""Figures: small pictures whose text says what they show."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from IPython.core.interactiveshell import InteractiveShell

from lepton_lib import plots


def text(figure):
    return repr(plots.show(figure, alt="What it shows."))


def test_a_figure_describes_its_data():
    """The text holds alternative text, title, labels and data, and changes when the data do."""
    texts = []
    for top in (3.0, 3.5):
        figure, axes = plots.subplots()
        axes.plot([0, 1, 2], [1, 2, top], label="loss")
        _ = axes.set(title="It rises", xlabel="epoch", ylabel="nats")
        texts.append(text(figure))
    assert texts[0].splitlines()[:2] == [
        "Figure: What it shows.",
        "  [It rises] x: epoch (-0.1 to 2.1), y: nats (0.9 to 3.1)",
    ]
    assert (
        "line 'loss': n=3, 0 to 2, mean 1, sd 0.816, first 0, last 2 | n=3, 1 to 3, mean 2"
        in texts[0]
    )
    assert texts[0] != texts[1]


@pytest.mark.parametrize(
    ("draw", "word"),
    [
        (lambda axes: axes.bar(["a", "b"], [1, 2]), "bars"),
        (lambda axes: axes.scatter([1, 2], [3, 4], label="rows"), "points 'rows'"),
        (lambda axes: axes.fill_between([0, 1], [1, 2]), "area"),
        (lambda axes: axes.imshow(np.eye(2)), "image"),
        (lambda axes: axes.pcolormesh(np.eye(2)), "mesh"),
        (lambda axes: axes.stairs([1, 2]), "steps"),
        (lambda axes: axes.errorbar([0, 1], ["a", "b"], xerr=[0.1, 0.2]), "area"),
        (lambda axes: axes.plot(["a", "b"], [1, 2]), "line"),
        (lambda axes: axes.plot([], []), "line : empty | empty"),
        (lambda axes: axes.axhline(0.25, label="limit"), "line 'limit': at y = 0.25"),
        (lambda axes: axes.axvline(3), "line : at x = 3"),
        (lambda axes: axes.plot([np.nan, 1], [1, np.inf]), "n=1, 1 to 1"),
    ],
)
def test_every_kind_of_drawing_is_described(draw, word):
    """Bars, points, areas, images, meshes, steps, error bars and empty lines are described."""
    figure, axes = plots.subplots()
    draw(axes)
    assert word in text(figure)


@pytest.mark.parametrize(
    "hide",
    [
        lambda axes: axes.lines[0].set_alpha(0),
        lambda axes: axes.set_xlim(5, 6),
        lambda axes: axes.collections[0].set_visible(False),
        lambda axes: axes.set_ylim(-2, -1),
    ],
)
def test_what_cannot_be_seen_is_marked(hide):
    """A line or points that are transparent, or outside of the limits, are described as hidden."""
    figure, axes = plots.subplots()
    axes.plot([0, 1], [1, 2])
    axes.scatter([0, 1], [1, 2])
    assert "hidden" not in text(figure)
    hide(axes)
    assert ", hidden" in text(figure)


def test_ticks_and_direction_of_an_axis_are_described():
    """Exchanged tick labels and an inverted axis change the description."""
    figure, axes = plots.subplots()
    axes.set_xticks([0, 1], ["good", "bad"])
    axes.set_ylim(1, 0)
    assert "x:  (0 to 1: good, bad), y:  (1 to 0)" in text(figure)
    figure, axes = plots.subplots()
    axes.bar(["good", "bad"], [1, 2])
    assert ": good, bad), y: " in text(figure)


def test_error_bars_are_no_empty_bars():
    """Error bars are described by their lines, and not as bars without any."""
    figure, axes = plots.subplots()
    axes.errorbar([0, 1], [1, 2], yerr=[0.1, 0.3])
    assert "bars" not in text(figure)


def test_pictures_are_small_png_and_repeat():
    """The picture is a PNG under 60 KB with its alternative text, the same bytes each time."""
    figure, axes = plots.subplots(1, 2, width=9)
    plots.histograms(axes[0], {"a": np.arange(100), "b": [1.0, np.nan, 50.0]})
    plots.reliability(axes[1], {"model": ([0.2, 0.8], [0.1, 0.9], [5, 5])})
    picture = plots.show(figure, alt="Two groups.")
    data, metadata = picture._repr_mimebundle_()
    assert data["image/png"].startswith(b"\x89PNG")
    assert len(data["image/png"]) < 60_000
    assert metadata["image/png"]["alt"] == "Two groups."
    assert data["text/plain"] == picture.describe()
    assert picture._repr_mimebundle_()[0] == data


def test_bars_stand_in_order_with_their_errors():
    """Horizontal bars come with the first entry on top, with error bars or without."""
    for errors in (None, {"first": 0.1, "second": 0.2}):
        figure, axes = plots.subplots()
        plots.bars(axes, {"first": 1.0, "second": 2.0}, errors=errors)
        assert [label.get_text() for label in axes.get_yticklabels()] == ["second", "first"]
        assert "n=2, 1 to 2" in text(figure)


def test_histograms_share_their_bins():
    """Groups are drawn over the same edges as densities, and gaps are left out."""
    figure, axes = plots.subplots()
    plots.histograms(axes, {"a": [0.0, 1.0], "b": [0.5, np.nan]}, bins=4)
    steps = [line for line in text(figure).splitlines() if "steps" in line]
    assert len(steps) == 2
    assert all("n=5, 0 to 1" in line and "n=4" in line for line in steps)


def test_the_style_is_set_only_when_asked():
    """The course's style is taken on by use_style alone, and its colours differ."""
    from matplotlib import rcdefaults, rcParams

    rcdefaults()
    assert rcParams["axes.spines.top"]
    plots.use_style()
    assert not rcParams["axes.spines.top"]
    assert len(set(plots.COLOURS)) == len(plots.COLOURS)
    rcdefaults()


def test_a_table_in_a_notebook_tells_its_types(monkeypatch):
    """After use_style a notebook's text of a table ends with its types."""
    shell = InteractiveShell()
    monkeypatch.setattr("IPython.core.getipython.get_ipython", lambda: shell)
    plots.use_style()
    table = pd.DataFrame({"a": np.ones(2, dtype=np.float32), "b": [1, 2]})
    shown = shell.display_formatter.format(table, include={"text/plain"})[0]["text/plain"]
    assert shown.endswith("types: int64 | float32, int64")
