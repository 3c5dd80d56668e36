"""Figures for the notebooks: one style, no global state, and a description that can be compared.

The only module that imports matplotlib; it knows arrays and labels, nothing of models or runs.
Figures are made without pyplot, so that nothing is shown twice and nothing stays open.
"""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.category import StrCategoryLocator
from matplotlib.collections import PathCollection, QuadMesh
from matplotlib.container import BarContainer
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import StepPatch
from matplotlib.rcsetup import cycler
from matplotlib.ticker import FixedLocator

# Okabe and Ito's colours, which colour-blind readers can tell apart.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#767676")
BLUE, ORANGE, GREEN, RED, PURPLE, GREY = COLOURS
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
PIXEL_RATIO = 2  # a picture is stored with so many pixels for each that it takes on the page
PALETTE = 64  # colours in a stored picture: few enough for a small file, and no dithering


class Picture:
    """A finished figure: a small PNG and, as its text, what it says and which data it shows.

    Notebooks are compared by this text, so that a figure that changes is noticed.
    """

    def __init__(self, figure: Figure, alt: str) -> None:
        self.figure = figure
        self.alt = alt

    def describe(self) -> str:
        """The alternative text, then for each axes its title, its labels and its data, rounded."""
        lines = [f"Figure: {self.alt}"]
        for axes in self.figure.axes:
            title = axes.get_title(loc="left") or axes.get_title()  # left in the course's style
            lines.append(
                f"  [{title}] x: {_describe_axis(axes.xaxis)}, y: {_describe_axis(axes.yaxis)}"
            )
            lines += [f"    {line}" for line in _describe_axes(axes)]
        return "\n".join(lines)

    def __repr__(self) -> str:
        return self.describe()

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        from PIL import Image

        drawn, stored = io.BytesIO(), io.BytesIO()
        self.figure.savefig(drawn, format="png", dpi=DPI * PIXEL_RATIO, bbox_inches="tight")
        picture = Image.open(drawn).convert("RGB").quantize(PALETTE, dither=Image.Dither.NONE)
        picture.save(stored, "png", optimize=True)
        data = {"image/png": stored.getvalue(), "text/plain": self.describe()}
        width, height = (pixels // PIXEL_RATIO for pixels in picture.size)
        return data, {"image/png": {"alt": self.alt, "width": width, "height": height}}


def drawn_data(drawing: Picture | Figure | Axes) -> list[str]:
    """The data of a drawing, rounded, a line an artist, without titles, labels and colours."""
    figure = drawing.figure if isinstance(drawing, Picture) else drawing
    every = [figure] if isinstance(figure, Axes) else figure.axes
    lines = [line for axes in every for line in _describe_axes(axes)]
    data = [line for line in lines if not line.startswith("texts: ")]
    return [re.sub(r"^(\w+) .*?: (?=n=|empty|at )", r"\1: ", line) for line in data]


def _describe_axis(axis: Axis) -> str:
    """The label, then the limits, the larger one first on an inverted axis, and fixed ticks."""
    low, high = axis.get_view_interval()
    shown = f"{low:.3g} to {high:.3g}"
    if isinstance(axis.get_major_locator(), FixedLocator | StrCategoryLocator):
        ticks = axis.get_major_formatter().format_ticks([*axis.get_majorticklocs()])
        shown += f": {', '.join(map(str, ticks))}"
    return f"{axis.get_label_text()} ({shown})"


def _describe_axes(axes: Axes) -> list[str]:
    lines = [_describe_line(line, axes) for line in axes.get_lines()]
    for container in axes.containers:
        if isinstance(container, BarContainer):  # the parts of error bars are lines and areas
            widths = [box.get_width() for box in container]
            lines.append(
                _artist("bars", container, widths, [box.get_height() for box in container])
            )
    for steps in axes.patches:
        if isinstance(steps, StepPatch):
            values, edges, _ = steps.get_data()
            lines.append(_artist("steps", steps, edges, values))
    for collection in axes.collections:
        if isinstance(collection, PathCollection):
            points = np.asarray(collection.get_offsets(), dtype=float)
            unseen = _unseen(collection, axes, *points.T)
            lines.append(_artist("points", collection, *points.T) + unseen)
        elif isinstance(collection, QuadMesh):
            lines.append(_artist("mesh", collection, collection.get_array()))
        else:
            paths = [path.vertices for path in collection.get_paths()]
            vertices = np.concatenate([*paths, np.zeros((0, 2))])
            lines.append(_artist("area", collection, *vertices.T))
    lines += [f"image: {_summary(image.get_array())}" for image in axes.get_images()]
    if texts := [repr(text.get_text()) for text in axes.texts if text.get_text()]:
        lines.append(f"texts: {', '.join(texts)}")
    return lines


def _describe_line(line: Line2D, axes: Axes) -> str:
    x, y = np.asarray(line.get_xdata(orig=False)), np.asarray(line.get_ydata(orig=False))
    along_x, along_y = line.get_transform().contains_branch_seperately(axes.transData)
    if along_x and along_y:
        return _artist("line", line, x, y) + _unseen(line, axes, x, y)
    # of axhline or axvline, from edge to edge: a mark beside the data
    return f"line {_legend_label(line)}: at {f'x = {x[0]:.3g}' if along_x else f'y = {y[0]:.3g}'}"


def _unseen(artist: Any, axes: Any, x: Any, y: Any) -> str:
    """A mark for what can't be seen: transparent, or with no point within the axes' limits."""
    inside = np.ones(np.shape(x), bool)
    for values, axis in ((x, axes.xaxis), (y, axes.yaxis)):
        low, high = sorted(axis.get_view_interval())
        numbers: Any = np.asarray(axis.convert_units(values), dtype=float)
        inside &= (numbers >= low) & (numbers <= high)
    unseen = np.all(artist.get_alpha() == 0) or not artist.get_visible() or not inside.any()
    return ", hidden" if np.size(x) and unseen else ""


def _artist(kind: str, artist: Any, *data: Any) -> str:
    return f"{kind} {_legend_label(artist)}: {' | '.join(map(_summary, data))}"


def _legend_label(artist: Any) -> str:
    label = str(artist.get_label())
    return "" if label.startswith("_") else repr(label)


def _summary(values: Any) -> str:
    """Count, range, mean, standard deviation, first and last, to three significant digits."""
    array = np.ma.filled(np.ma.asarray(values).astype(float), np.nan).ravel()
    array = array[np.isfinite(array)]
    if array.size == 0:
        return "empty"
    mean = array.mean()
    if abs(mean) <= 1e-6 * np.abs(array).max():
        mean = 0.0  # of +x and -x only rounding is left
    statistics = (array.min(), array.max(), mean, array.std(), array[0], array[-1])
    low, high, middle, spread, first, last = (f"{value + 0.0:.3g}" for value in statistics)
    ends = f"first {first}, last {last}"
    return f"n={array.size}, {low} to {high}, mean {middle}, sd {spread}, {ends}"


def font_lists() -> list[Path]:
    """Matplotlib's lists of this machine's fonts; a copy spares another process the search."""
    from matplotlib import font_manager, get_cachedir

    assert font_manager.fontManager  # which has written the list
    return list(Path(get_cachedir()).glob("fontlist*.json"))


def use_style() -> None:
    """Set the course's style for all later figures: for a notebook's first cell.

    In a notebook the text of a table, which is compared, then ends with its types: two tables may
    look the same and yet hold ``float32`` and ``float64``.
    """
    rcParams.update(STYLE)
    ipython = sys.modules.get("IPython")  # a kernel has it loaded; the core does without
    shell = ipython.get_ipython() if ipython is not None else None
    if shell is not None and shell.display_formatter is not None:
        text = shell.display_formatter.formatters["text/plain"]
        text.for_type_by_name("pandas", "DataFrame", _describe_table)


def _describe_table(table: Any, printer: Any, _cycle: bool) -> None:
    """Print a DataFrame for IPython: as pandas shows it, then the types of index and columns."""
    types = ", ".join(str(dtype) for dtype in table.dtypes)
    printer.text(f"{table!r}\ntypes: {table.index.dtype} | {types}")


def subplots(
    rows: int = 1, columns: int = 1, *, width: float = 7.0, height: float = 3.6, **options: Any
) -> Any:
    """A figure and its axes as from ``matplotlib.pyplot.subplots``, without pyplot.

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
        alt: The alternative text, for readers who can't see it.
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
    caps = {"ecolor": GREY, "capsize": 3}
    axes.barh(names, widths, xerr=spread, color=colour, height=0.65, error_kw=caps)
    axes.grid(axis="y", visible=False)


def histograms(axes: Axes, groups: Mapping[str, Any], *, bins: int | Sequence[float] = 30) -> None:
    """Distributions of several groups over the same bins, as densities, drawn as steps."""
    arrays = {name: np.asarray(values, dtype=float) for name, values in groups.items()}
    arrays = {name: values[np.isfinite(values)] for name, values in arrays.items()}
    edges = np.histogram_bin_edges(np.concatenate(list(arrays.values())), bins=bins)
    for colour, (name, values) in zip(COLOURS, arrays.items(), strict=False):
        density, _ = np.histogram(values, bins=edges, density=True)
        look: Any = {"facecolor": (colour, 0.3), "edgecolor": colour, "linewidth": 1.4}
        axes.stairs(density, edges, label=name, fill=True, **look)
    axes.legend()


def reliability(axes: Axes, points: Mapping[str, tuple[Any, Any, Any]]) -> None:
    """Reliability diagrams, from `lepton_lib.metrics.reliability`: stated against observed."""
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle="--", label="as stated")
    for colour, (name, (stated, happened, _)) in zip(COLOURS, points.items(), strict=False):
        axes.plot(stated, happened, marker="o", markersize=4, color=colour, label=name)
    _ = axes.set(xlabel="stated probability", ylabel="observed frequency")
    axes.legend()
