"""Figures for the notebooks: one style, no global state, and a description that can be compared.

The only module that imports matplotlib; it knows arrays and labels, nothing of models or runs.
Figures are made without pyplot, so that nothing is shown twice and nothing stays open.
"""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection, QuadMesh
from matplotlib.container import BarContainer
from matplotlib.figure import Figure
from matplotlib.patches import StepPatch
from matplotlib.rcsetup import cycler

# Okabe and Ito's colours, which stay apart for colour-blind readers.
BLUE, ORANGE, GREEN, RED, PURPLE, GREY = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#D55E00",
    "#CC79A7",
    "#767676",
)
COLOURS = (BLUE, ORANGE, GREEN, RED, PURPLE, GREY)
STYLE: Any = {
    "axes.prop_cycle": cycler(color=COLOURS),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.titlesize": 11,
    "axes.labelsize": 9.5,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.8,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.8,
    "figure.facecolor": "white",
    "font.family": ["DejaVu Sans"],
    "svg.hashsalt": "lepton",
}
DPI = 96


class Picture:
    """A finished figure: a small PNG for readers and, as its text, what it says and which data it shows.

    The text is what a comparison of notebooks compares, so that a figure that changes is noticed.
    """

    def __init__(self, figure: Figure, alt: str) -> None:
        self.figure = figure
        self.alt = alt

    def describe(self) -> str:
        """The alternative text, then for each set of axes its title, labels and the data on it, rounded."""
        lines = [f"Figure: {self.alt}"]
        for axes in self.figure.axes:
            # left in the course's style, else in the middle
            title = axes.get_title(loc="left") or axes.get_title()
            lines.append(f"  [{title}] x: {axes.get_xlabel()}, y: {axes.get_ylabel()}")
            lines += [f"    {line}" for line in _describe_axes(axes)]
        return "\n".join(lines)

    def __repr__(self) -> str:
        return self.describe()

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        buffer = io.BytesIO()
        self.figure.savefig(
            buffer, format="png", dpi=DPI, metadata={"Software": None}, bbox_inches="tight"
        )
        return {"image/png": buffer.getvalue(), "text/plain": self.describe()}, {
            "image/png": {"alt": self.alt}
        }


def drawn_data(drawing: Picture | Figure | Axes) -> list[str]:
    """The data that a drawing shows, rounded, a line for each artist, without titles, labels and colours."""
    figure = drawing.figure if isinstance(drawing, Picture) else drawing
    every = [figure] if isinstance(figure, Axes) else figure.axes
    lines = [
        line for axes in every for line in _describe_axes(axes) if not line.startswith("texts: ")
    ]
    return [re.sub(r"^(\w+) .*?: (?=n=|empty|at )", r"\1: ", line) for line in lines]


def _describe_axes(axes: Axes) -> list[str]:
    lines = []
    for line in axes.get_lines():
        x, y = np.asarray(line.get_xdata(orig=False)), np.asarray(line.get_ydata(orig=False))
        along_x, along_y = line.get_transform().contains_branch_seperately(axes.transData)
        if along_x and along_y:
            lines.append(f"line {_label(line)}: {_summary(x)} | {_summary(y)}")
        else:  # drawn by axhline or axvline, from edge to edge: a mark beside the data, and none itself
            lines.append(
                f"line {_label(line)}: at {f'x = {x[0]:.3g}' if along_x else f'y = {y[0]:.3g}'}"
            )
    for container in axes.containers:
        if not isinstance(container, BarContainer):
            continue  # the lines of error bars are described as lines and areas
        widths, heights = (
            [box.get_width() for box in container],
            [box.get_height() for box in container],
        )
        lines.append(f"bars {_label(container)}: {_summary(widths)} | {_summary(heights)}")
    for steps in axes.patches:
        if isinstance(steps, StepPatch):
            values, edges, _ = steps.get_data()
            lines.append(f"steps {_label(steps)}: {_summary(edges)} | {_summary(values)}")
    for collection in axes.collections:
        if isinstance(collection, PathCollection):
            points = np.asarray(collection.get_offsets(), dtype=float)
            lines.append(
                f"points {_label(collection)}: {_summary(points[:, 0])} | {_summary(points[:, 1])}"
            )
        elif isinstance(collection, QuadMesh):
            lines.append(f"mesh {_label(collection)}: {_summary(collection.get_array())}")
        else:
            vertices = np.concatenate(
                [path.vertices for path in collection.get_paths()] or [np.zeros((0, 2))]
            )
            lines.append(
                f"area {_label(collection)}: {_summary(vertices[:, 0])} | {_summary(vertices[:, 1])}"
            )
    lines += [f"image: {_summary(image.get_array())}" for image in axes.get_images()]
    if texts := [repr(text.get_text()) for text in axes.texts if text.get_text()]:
        lines.append(f"texts: {', '.join(texts)}")
    return lines


def _label(artist: Any) -> str:
    label = str(artist.get_label())
    return "" if label.startswith("_") else repr(label)


def _summary(values: Any) -> str:
    """How many values, their range, mean and spread, the first and the last, to three significant digits."""
    array = np.ma.filled(np.ma.asarray(values).astype(float), np.nan).ravel()
    array = array[np.isfinite(array)]
    if array.size == 0:
        return "empty"
    # of +x and -x: rounding alone
    mean = array.mean() if abs(array.mean()) > 1e-6 * np.abs(array).max() else 0.0
    statistics = (array.min(), array.max(), mean, array.std(), array[0], array[-1])
    low, high, middle, spread, first, last = (f"{value + 0.0:.3g}" for value in statistics)
    return (
        f"n={array.size}, {low} to {high}, mean {middle}, sd {spread}, first {first}, last {last}"
    )


def use_style() -> None:
    """Set the course's style for all figures made from here on: for a notebook's first cell.

    In a notebook the text of a table, which is what a comparison sees, then ends with its types:
    two tables may look the same and yet hold ``float32`` and ``float64``.
    """
    rcParams.update(STYLE)
    ipython = sys.modules.get("IPython")  # a kernel has it loaded; the core does without
    shell = ipython.get_ipython() if ipython is not None else None
    if shell is not None and shell.display_formatter is not None:
        shell.display_formatter.formatters["text/plain"].for_type_by_name(
            "pandas", "DataFrame", _describe_table
        )


def _describe_table(table: Any, printer: Any, _cycle: bool) -> None:
    """Print a DataFrame for IPython: as pandas shows it, then the types of its index and of its columns."""
    types = ", ".join(str(dtype) for dtype in table.dtypes)
    printer.text(f"{table!r}\ntypes: {table.index.dtype} | {types}")


def subplots(
    rows: int = 1, columns: int = 1, *, width: float = 7.0, height: float = 3.6, **options: Any
) -> Any:
    """A figure and its axes, as ``matplotlib.pyplot.subplots`` gives them, without pyplot.

    Args:
        rows: Rows of axes.
        columns: Columns of axes.
        width: Of the figure, in inches.
        height: Of the figure, in inches.
        **options: For ``Figure.subplots``: ``sharex``, ``sharey``, ...
    """
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, **options)


def show(figure: Figure, *, alt: str) -> Picture:
    """Finish a figure: the last expression of a notebook's cell.

    Args:
        figure: The figure, its axes titled and labelled.
        alt: What a reader who can't see it should know.
    """
    return Picture(figure, alt)


def bars(
    axes: Axes,
    values: Mapping[str, float],
    *,
    errors: Mapping[str, float] | None = None,
    colour: str = BLUE,
) -> None:
    """Horizontal bars, the first entry on top, with optional error bars."""
    names = list(values)[::-1]
    widths = [values[name] for name in names]
    spread = None if errors is None else [errors[name] for name in names]
    axes.barh(
        names,
        widths,
        xerr=spread,
        color=colour,
        height=0.65,
        error_kw={"ecolor": GREY, "capsize": 3},
    )
    axes.grid(axis="y", visible=False)


def histograms(axes: Axes, groups: Mapping[str, Any], *, bins: int | Sequence[float] = 30) -> None:
    """Distributions of several groups over the same bins, as densities, drawn as steps."""
    arrays = {name: np.asarray(values, dtype=float) for name, values in groups.items()}
    arrays = {name: values[np.isfinite(values)] for name, values in arrays.items()}
    edges = np.histogram_bin_edges(np.concatenate(list(arrays.values())), bins=bins)
    for colour, (name, values) in zip(COLOURS, arrays.items(), strict=False):
        density, _ = np.histogram(values, bins=edges, density=True)
        axes.stairs(
            density,
            edges,
            label=name,
            fill=True,
            facecolor=(colour, 0.3),
            edgecolor=colour,
            linewidth=1.4,
        )
    axes.legend()


def reliability(axes: Axes, points: Mapping[str, tuple[Any, Any, Any]]) -> None:
    """Reliability diagrams: stated probability against observed frequency, from `lepton_lib.metrics.reliability`."""
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle="--", label="as stated")
    for colour, (name, (stated, happened, _)) in zip(COLOURS, points.items(), strict=False):
        axes.plot(stated, happened, marker="o", markersize=4, color=colour, label=name)
    _ = axes.set(xlabel="stated probability", ylabel="observed frequency")
    axes.legend()
