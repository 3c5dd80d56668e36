"""What a decision sets going: retraining, a comparison, a trial in the shadow, promotion, the way back.

Each step leaves what it made whole, and is noted in the journal when it is done; a step that was
killed is taken again.
"""

from __future__ import annotations

import contextlib
import csv
import json
import os
import shutil
import tempfile
import tomllib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from lepton_lib.artefacts import STEPS, Run
from lepton_lib.cases import Case, load_case
from lepton_lib.cases.sections import TARGET
from lepton_lib.data import encode, read_table
from lepton_lib.errors import RunError
from lepton_lib.intervals import paired_difference
from lepton_lib.metrics import log_loss, mean_absolute_error
from lepton_lib.monitoring import MIN_ROWS, Interval, choose_model
from lepton_lib.operations.journal import ENDS, Act, Journal
from lepton_lib.runs import find_notebook, run_loop
from lepton_lib.serving import Scorer, read_log, releases
from lepton_lib.utils import sha256_of, to_toml

_LEARNT = ("train", "validation")
Said = Callable[[str], None]


def answers_of(case: Case, log: pd.DataFrame) -> np.ndarray:
    """The answers that were given to rows of the log, float64 ``(n, n_classes)`` or ``(n, 1)``."""
    names = [f"answer.p_{name}" for name in case.classes] or ["answer.prediction"]
    return log[names].to_numpy(dtype=np.float64).reshape(-1, len(names))


def block_of(run: Run) -> int:
    """How many neighbouring rows are drawn together in that run's evaluation; one where rows are independent."""
    return int(run.read_json("evaluation/metrics.json").get("block", 1))


class Watched(NamedTuple):
    """A run folder under watch: its case, its journal, where its log lies, and whose signatures count."""

    run: Run
    case: Case
    book: Journal
    log: Path
    trust: Sequence[str] | None

    def scorer(self, home: Run) -> Scorer:
        """What answers as the service of that run folder does."""
        return Scorer(home.folder / "service", case=self.case, trust=self.trust)


def home_of(run: Run, version: str) -> Run:
    """The run folder that a version comes from: this one, or one of its retrainings.

    Raises:
        RunError: Neither made it.
    """
    for home in (run.folder, *sorted(run.folder.glob("monitoring/retrain-*/run"))):
        with contextlib.suppress(OSError, ValueError, KeyError):
            if (
                json.loads((home / "service" / "manifest.json").read_text(encoding="utf-8"))[
                    "version"
                ]
                == version
            ):
                return Run(home)
    raise RunError(
        str(run.folder),
        f"the version {version} at work, which none of its trainings made",
        "a version whose training rows lie in this run folder",
        "Roll the service back, or watch the run folder that the version comes from.",
    )


def predecessor(book: Journal, version: str) -> str | None:
    """The version that this one took over from, as far as it was promoted here."""
    taken = [
        act
        for act in book.acts()
        if act.stage == "promoted" and act.content["challenger"] == version
    ]
    return str(taken[-1].content["champion"]) if taken else None


def advance(watched: Watched, say: Said) -> None:
    """Take every act on as far as it goes now.

    Raises:
        RunError: The service's releases can't be changed.
        NotebookError: A notebook failed in retraining.
    """
    for act in watched.book.acts():
        reached = act
        while reached.stage not in ENDS and (after := _step(watched, reached)) is not None:
            reached = after
            say(f"window {act.window}: {act.action}: {reached.stage}")


def _step(watched: Watched, act: Act) -> Act | None:
    """The next step of an act; None if it has to wait for rows."""
    run, case, book, log, trust = watched
    folder = run.folder / "monitoring" / f"retrain-{act.window:03}"
    match act.action, act.stage:
        case "roll back", _:
            return _roll_back(watched, act)
        case _, "decided":
            told = read_log(log, case, book.told(log))
            return book.advance(
                act, "gathered", **_gather(case, told, folder, releases.current_version(run.folder))
            )
        case _, "gathered":
            _train(home_of(run, act.content["champion"]), case, folder)
            return book.advance(act, "trained")
        case _, "trained":
            return _compare(watched, act, folder)
        case _, "shadow":
            return _shadow(watched, act, folder)
    version = releases.install(run.folder, folder / "run" / "service", trust=trust)
    releases.promote(run.folder, version, trust=trust)
    return book.advance(act, "promoted")


def _roll_back(watched: Watched, act: Act) -> Act:
    run, book = watched.run, watched.book
    if "from" not in act.content:
        act = book.advance(act, act.stage, **{"from": releases.current_version(run.folder)})
    # else it was done before a kill
    if releases.current_version(run.folder) == act.content["from"]:
        releases.roll_back(run.folder, trust=watched.trust)
    return book.advance(act, "rolled back", to=releases.current_version(run.folder))


def _gather(case: Case, told: pd.DataFrame, folder: Path, champion: str) -> dict[str, Any]:
    """Write the case's rows and the labelled served ones as a case of its own, ``folder/<name>``."""
    raw = read_table(case)
    served = pd.DataFrame(index=told.index)
    filled = []
    for column in case.columns:
        if column.role == "input" and column.kind == "timestamp":
            served[column.name] = told[column.name].dt.strftime("%Y-%m-%dT%H:%M:%S")
        elif column.role == "input":
            served[column.name] = told[column.name].map(
                repr if column.kind == "number" else str, na_action="ignore"
            )
        elif case.split.method == "given" and column.name == case.split.column:
            served[column.name] = "train"
        elif (
            case.split.method == "time"
            and column.name == case.split.column
            and column.kind == "timestamp"
        ):
            served[column.name] = told["log.time"].dt.strftime("%Y-%m-%dT%H:%M:%S")
        elif column.nullable:
            served[column.name] = ""
        else:  # nobody was asked for it, and no model sees it; but a row without it would be dropped
            served[column.name] = raw[column.name].mode().iloc[0]
            filled.append(column.name)
    values = [entry.values[0] for entry in case.target.classes]
    served[TARGET] = [values[int(label)] if values else repr(label) for label in told[TARGET]]
    table = pd.concat([raw, served.astype(object).where(served.notna(), "").astype(str)])
    headers = {column.name: column.header for column in case.columns} | {TARGET: case.target.column}
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".") as aside:
        place = Path(aside) / case.name
        place.mkdir()
        table.rename(columns=headers).to_csv(
            place / "table.csv",
            index=False,
            sep=case.data.delimiter,
            quoting=csv.QUOTE_MINIMAL,
            encoding="utf-8",
        )
        text = _described(case, sha256_of(place / "table.csv"))
        (place / "case.toml").write_text(text, encoding="utf-8")
        # of a step that was killed before it was noted
        shutil.rmtree(folder / case.name, ignore_errors=True)
        place.rename(folder / case.name)
    return {"champion": champion, "rows": len(raw), "served": len(served), "filled": filled}


def _described(case: Case, digest: str) -> str:
    """The case.toml of another table, without [records], which don't hold the served rows."""
    keys = tomllib.loads(case.path("case.toml").read_text(encoding="utf-8-sig"))
    keys.pop("records", None)
    data = {
        "file": "table.csv",
        "sha256": digest,
        "encoding": "utf-8",
        "skip_rows": 0,
        "duplicates": "drop",
    }
    return "".join(
        f"{key} = {to_toml(value)}\n"
        for key, value in (keys | {"data": keys["data"] | data}).items()
    )


def _train(home: Run, case: Case, folder: Path) -> None:
    """Run notebooks 01 to 04 on the enlarged case, with the champion's own parameters."""
    steps = home.manifest["steps"]
    given = {
        name: value for step in STEPS[1:5] for name, value in steps[step]["parameters"].items()
    }
    with _found(folder):
        notebooks = [find_notebook(step) for step in STEPS[1:5]]
        run_loop(
            run_dir=folder / "run", parameters=given | {"case": case.name}, notebooks=notebooks
        )


@contextlib.contextmanager
def _found(place: Path) -> Iterator[None]:
    """Let cases in that folder be found first, also by notebooks."""
    before = os.environ.get("LEPTON_DATASETS")
    os.environ["LEPTON_DATASETS"] = os.pathsep.join(filter(None, (str(place.absolute()), before)))
    try:
        yield
    finally:
        del os.environ["LEPTON_DATASETS"]
        if before is not None:
            os.environ["LEPTON_DATASETS"] = before


def _compare(watched: Watched, act: Act, folder: Path) -> Act:
    """The same gate, then both models on rows that neither has learnt from; what fails here isn't tried on."""
    book, challenger = watched.book, Run(folder / "run")
    version = watched.scorer(challenger).version
    gate = challenger.read_json("evaluation/gate.json")
    differences = _differences(watched, act, folder)
    note = {"challenger": version, "gate": gate["passed"], "differences": differences}
    failed = [entry["name"] for entry in gate["criteria"] if not entry["passed"]]
    worse = [name for name, (_, _, high) in differences.items() if high < 0]
    reasons = [f"the gate is closed: {', '.join(failed)}"] if failed else []
    reasons += [f"certainly worse on {', '.join(worse)}"] if worse else []
    reasons += ["the same model again"] if version == act.content["champion"] else []
    return book.advance(act, "kept" if reasons else "shadow", **note, reasons=reasons)


def _shadow(watched: Watched, act: Act, folder: Path) -> Act | None:
    """Let the challenger answer what the champion was asked since, then decide.

    It answers live requests as the log has kept them, after the champion and out of its way: nobody
    waits for two models, and a challenger that fails can't hurt an answer. What this doesn't show
    is how fast it would answer under the service's load; the gate measures its latency by itself.
    """
    run, case, book, log, _ = watched
    windows = book.judged(after=act.window)
    if len(set(windows.values())) < case.policy.shadow_windows:
        return None
    if releases.current_version(run.folder) != act.content["champion"]:
        return book.advance(
            act, "kept", reasons=["another model is at work by now: the comparison is void"]
        )
    live = read_log(log, case, windows)
    live = live[live["log.model_version"] == act.content["champion"]]
    given = answers_of(case, live)
    new = watched.scorer(Run(folder / "run")).probabilities(
        encode(live.fillna({TARGET: 0}), case)[0]
    )
    both = {f"champion_{k}": given[:, k] for k in range(new.shape[1])}
    both |= {f"challenger_{k}": new[:, k] for k in range(new.shape[1])}
    pd.DataFrame({"label": live[TARGET], **both}, index=live.index).to_parquet(
        folder / "shadow.parquet"
    )
    differences = _differences(watched, act, folder, live[live[TARGET].notna()])
    decision = choose_model(
        differences, deciding="served rows" if "served rows" in differences else "test rows"
    )
    apart = float(np.abs(given - new).mean())
    note = {
        "differences": differences,
        "shadowed": len(live),
        "apart": apart,
        "reasons": decision.reasons,
    }
    return book.advance(act, "promoting" if decision.action == "promote" else "kept", **note)


def _differences(
    watched: Watched, act: Act, folder: Path, live: pd.DataFrame | None = None
) -> dict[str, Interval]:
    """Champion's mean loss minus challenger's, by set of rows that neither has learnt from; too small ones left out."""
    run, case = watched.run, watched.case
    old, new = home_of(run, act.content["champion"]), Run(folder / "run")
    models = [watched.scorer(each) for each in (old, new)]
    test, before = (pd.read_parquet(each.path("data/test.parquet")) for each in (new, old))
    # A row's line differs between the two tables; its place among the case's own rows doesn't.
    lines, n = read_table(load_case(folder / case.name)).index, act.content["rows"]
    own = old.folder.parent / case.name if old.folder != run.folder else case.folder
    tested = lines[:n][read_table(load_case(own)).index[:n].isin(before.index)]
    loss = log_loss if case.classes else mean_absolute_error
    block = block_of(old)
    parts = {
        "served rows": test[test.index > lines[n - 1]],
        "test rows": test[test.index.isin(tested)],
    }
    parts["served rows"] = pd.concat([parts["served rows"], live])
    # Who asks again brings back a row that was learnt from, or is compared already: it proves
    # nothing.
    tables = [
        pd.read_parquet(each.path(f"data/{name}.parquet"))
        for each in (old, new)
        for name in _LEARNT
    ]
    learnt = {row.tobytes() for table in tables for row in encode(table, case)[0]}
    differences: dict[str, Interval] = {}
    for name, part in parts.items():
        inputs, labels = encode(part, case)
        fresh = np.zeros(len(inputs), dtype=bool)
        for position, row in enumerate(inputs):
            fresh[position] = row.tobytes() not in learnt
            learnt.add(row.tobytes())
        if fresh.sum() >= MIN_ROWS:
            answers = [model.probabilities(inputs[fresh]) for model in models]
            options: Any = {"seed": 0, "n": 500, "block": min(block, int(fresh.sum()))}
            differences[name] = paired_difference(loss, labels[fresh], *answers, **options)
    return differences
