"""Preprocessing as a part of the model: raw records go in, so training and serving cannot disagree.

Everything that is learnt from data (medians, means, scales, quantiles) is learnt by
`Preprocessor.fit` from the rows that it is given, which must be training rows only, and is stored
with the model's weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Self, get_args

import numpy as np
import torch
from torch import nn

from lepton_lib.cases import Case, Expression
from lepton_lib.errors import DataError, ParameterError

Encoding = Literal["standard", "piecewise"]
CLIP = 5.0  # standard deviations: a number beyond them tells the model nothing more


class Preprocessor(nn.Module):
    """Encodes raw inputs ``(b, d)``, laid out as ``Case.fields`` says, as ``(b, p)`` numbers.

    - Features are computed by their formulas. A missing number, or one that isn't finite, becomes
      the training median, with a flag beside it if any training row had it missing. Mean, scale and
      bins are those of the numbers that aren't missing.
    - ``standard``: (x - mean) / standard deviation, clipped at five deviations.
    - ``piecewise``: beside that, a piecewise-linear encoding over quantile bins: 1 for each bin
      below x, the fraction within x's own bin, 0 above (Gorishniy, Rubachev and Babenko, On
      Embeddings for Numerical Features in Tabular Deep Learning, 2022, eq. 1), so that a linear map
      becomes a piecewise-linear function of every number.
    - A category becomes one-hot; a missing one is all zeros.

    Args:
        fields: Name and number of categories (0 for a number) of each raw column.
        features: Name and formula of each computed number.
        encoding: How numbers are encoded.
        n_bins: Quantile bins of each number for ``piecewise``; repeated quantiles are merged.
        keep_raw: Add the numbers as they are, NaN where missing, at the end: for trees.

    Raises:
        ParameterError: No such encoding, or no bin.
    """

    def __init__(
        self,
        fields: Sequence[tuple[str, int]],
        features: Sequence[tuple[str, str]] = (),
        *,
        encoding: Encoding = "piecewise",
        n_bins: int = 12,
        keep_raw: bool = False,
    ) -> None:
        super().__init__()
        if encoding not in get_args(Encoding):
            raise ParameterError(
                "encoding", repr(encoding), "'standard' or 'piecewise'", "Choose one of them."
            )
        if n_bins < 1:
            raise ParameterError("n_bins", n_bins, "at least 1", "Start with 12.")
        self.config: dict[str, Any] = {
            "fields": [list(field) for field in fields],
            "features": [list(feature) for feature in features],
            "encoding": encoding,
            "n_bins": n_bins,
        }
        if keep_raw:
            self.config["keep_raw"] = True
        self._numbers = [(name, index) for index, (name, size) in enumerate(fields) if size == 0]
        self._formulas = [Expression(text, arithmetic=True) for _, text in features]
        self._used = {name for formula in self._formulas for name in formula.names}
        levels = [(index, level) for index, (_, size) in enumerate(fields) for level in range(size)]
        self.number_names = [name for name, _ in self._numbers] + [name for name, _ in features]

        m = len(self.number_names)
        self.n_raw = m * keep_raw  # columns at the end of the encoded inputs
        places = torch.tensor([index for _, index in self._numbers], dtype=torch.int64)
        self.register_buffer("number_column", places, persistent=False)
        self.register_buffer(
            "level_column", torch.tensor([index for index, _ in levels], dtype=torch.int64)
        )
        self.register_buffer(
            "level", torch.tensor([level for _, level in levels], dtype=torch.float32)
        )
        self.register_buffer("median", torch.zeros(m))
        self.register_buffer("mean", torch.zeros(m))
        self.register_buffer("scale", torch.ones(m))
        # numbers that get a "missing" flag
        self.register_buffer("flagged", torch.zeros(0, dtype=torch.int64))
        self.register_buffer("bin_column", torch.zeros(0, dtype=torch.int64))
        self.register_buffer("bin_start", torch.zeros(0))
        self.register_buffer("bin_width", torch.ones(0))

    # Buffers, typed for the checker.
    number_column: torch.Tensor
    level_column: torch.Tensor
    level: torch.Tensor
    median: torch.Tensor
    mean: torch.Tensor
    scale: torch.Tensor
    flagged: torch.Tensor
    bin_column: torch.Tensor
    bin_start: torch.Tensor
    bin_width: torch.Tensor

    @classmethod
    def for_case(
        cls,
        case: Case,
        *,
        encoding: Encoding = "piecewise",
        n_bins: int = 12,
        keep_raw: bool = False,
    ) -> Preprocessor:
        """An unfitted preprocessor for a case's fields and features."""
        fields = [(field.name, field.n_categories) for field in case.fields]
        features = [(feature.name, feature.expression) for feature in case.features]
        return cls(fields, features, encoding=encoding, n_bins=n_bins, keep_raw=keep_raw)

    @property
    def output_size(self) -> int:
        """Width ``p`` of the encoded inputs."""
        width = len(self.mean) + len(self.flagged) + len(self.bin_start) + len(self.level)
        return width + self.n_raw

    def numbers(self, raw: torch.Tensor) -> torch.Tensor:
        """The numbers and computed features ``(b, m)``, NaN or infinite where undefined."""
        numbers = raw.index_select(1, self.number_column)
        if not self._formulas:
            return numbers
        columns = {name: raw[:, index] for name, index in self._numbers if name in self._used}
        features = [formula(self._guarded(columns)) for formula in self._formulas]
        return torch.cat([numbers, torch.stack(features, dim=1)], dim=1)

    def as_raw(self, raw: torch.Tensor | np.ndarray) -> torch.Tensor:
        """Raw inputs as a float32 tensor on this module's device.

        Raises:
            DataError: Their shape isn't ``(n, d)`` with the fields' ``d``.
        """
        width = len(self.config["fields"])
        if raw.ndim != 2 or raw.shape[1] != width:
            raise DataError(
                "raw inputs",
                f"an array of shape {tuple(raw.shape)}",
                f"(n, {width})",
                "Encode the rows with data.encode(frame, case).",
            )
        if isinstance(raw, np.ndarray):
            # a copy of what is read-only
            raw = torch.from_numpy(np.require(raw, np.float32, ["C", "W"]))
        return raw.to(self.mean.device, torch.float32)

    @staticmethod
    def _guarded(columns: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The same columns; where one is missing, a formula's gradient is 0 instead of NaN.

        The chain rule there multiplies 0 (a missing feature is replaced by the median) by NaN.
        """
        if not any(column.requires_grad for column in columns.values()):
            return columns
        guarded = {name: column.view_as(column) for name, column in columns.items()}
        for column in guarded.values():
            column.register_hook(torch.nan_to_num)
        return guarded

    @torch.no_grad()
    def fit(self, raw: torch.Tensor | np.ndarray) -> Self:
        """Learn medians, means, scales and bins from the training rows ``(n, d)``.

        Raises:
            DataError: The width isn't the fields', or there is no row.
        """
        raw = self.as_raw(raw).cpu()
        if len(raw) == 0:
            raise DataError("Preprocessor.fit", "no row", "at least one", "Pass the training rows.")
        numbers = self.numbers(raw).double()
        missing = ~numbers.isfinite()
        observed = numbers.masked_fill(missing, torch.nan)
        median = observed.nanmedian(0).values.nan_to_num()  # a number that no row has: 0
        mean = observed.nanmean(0).nan_to_num()
        scale = (observed - mean).square().nanmean(0).sqrt().nan_to_num()
        device = self.mean.device
        self.median, self.mean = median.float().to(device), mean.float().to(device)
        highest = numbers.masked_fill(missing, -torch.inf).amax(0)
        varies = highest > numbers.masked_fill(missing, torch.inf).amin(0)
        self.scale = torch.where(varies, scale, 1.0).float().to(device)
        self.flagged = missing.any(0).nonzero().flatten().to(device)
        if self.config["encoding"] == "piecewise":
            grid = np.linspace(0, 1, self.config["n_bins"] + 1)
            values = [column[~np.isnan(column)] for column in observed.T.numpy()]
            edges = [np.unique(np.quantile(v, grid)) if len(v) else np.zeros(1) for v in values]
            columns = np.repeat(np.arange(len(edges)), [len(edge) - 1 for edge in edges])
            self.bin_column = torch.from_numpy(columns).to(device)
            for name, ends in (
                ("bin_start", [edge[:-1] for edge in edges]),
                ("bin_width", [np.diff(edge) for edge in edges]),
            ):
                joined = torch.from_numpy(np.concatenate(ends or [np.zeros(0)]))
                setattr(self, name, joined.float().to(device))
        return self

    def forward(self, raw: torch.Tensor) -> torch.Tensor:
        """Encode ``(b, d)`` as ``(b, p)``; differentiable in the numbers."""
        numbers = self.numbers(raw)  # (b, m)
        missing = ~(numbers.abs() < torch.inf)  # NaN and infinity; isfinite has no ONNX twin
        filled = torch.where(missing, self.median, numbers)
        standard = ((filled - self.mean) / self.scale).clamp(-CLIP, CLIP)  # (b, m)
        flags = _pick(missing.to(raw.dtype), self.flagged)
        in_bins = _pick(filled, self.bin_column)  # (b, bins)
        bins = ((in_bins - self.bin_start) / self.bin_width).clamp(0, 1)
        codes = torch.where(raw.abs() < torch.inf, raw, -1.0)  # a missing one equals no level
        one_hot = (_pick(codes, self.level_column) == self.level).to(raw.dtype)
        raw_numbers = [torch.where(missing, torch.nan, numbers)] if self.n_raw else []
        return torch.cat([standard, flags, bins, one_hot, *raw_numbers], dim=1)

    def output_names(self) -> list[str]:
        """What each of the ``p`` encoded columns is."""
        names, fields = self.number_names, self.config["fields"]
        seen: dict[int, int] = {}
        bins = []
        for column in self.bin_column.tolist():
            seen[column] = seen.get(column, 0) + 1
            bins.append(f"{names[column]} bin {seen[column]}")
        flags = [f"{names[index]} missing" for index in self.flagged.tolist()]
        levels = [
            f"{fields[i][0]} = {int(v)}"
            for i, v in zip(self.level_column.tolist(), self.level.tolist(), strict=True)
        ]
        raw = [f"{name} raw" for name in names[: self.n_raw]]
        return [*names, *flags, *bins, *levels, *raw]

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # What fit() learns decides these lengths; take them from the stored state before torch
        # compares shapes.
        for name in ("flagged", "bin_column", "bin_start", "bin_width"):
            if (stored := state_dict.get(prefix + name)) is not None:
                setattr(self, name, torch.empty_like(stored, device=self.mean.device))
        super()._load_from_state_dict(state_dict, prefix, *args)


def _pick(values: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """The columns of finite values ``(b, m)``; in an exported graph by a product with 0s and 1s.

    onnxruntime gathers columns many times more slowly.
    """
    if not torch.compiler.is_exporting():
        return values.index_select(1, columns)
    return values @ nn.functional.one_hot(columns, values.shape[1]).to(values.dtype).T
