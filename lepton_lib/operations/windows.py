"""One look at a run folder: new rows and labels are judged, the decision is recorded, and acts are taken a step on."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lepton_lib.artefacts import Run, exclusive_lock
from lepton_lib.cases import Case, load_case
from lepton_lib.cases.sections import TARGET
from lepton_lib.data import encode
from lepton_lib.errors import DataError
from lepton_lib.monitoring import (
    Interval,
    Moments,
    Reference,
    Signals,
    change_in_mean,
    confidence_sequence,
    count_problems,
    drift_report,
    estimate_performance,
    group_performance,
    judge,
    moments,
    performance,
    row_losses,
)
from lepton_lib.operations.acting import (
    Watched,
    advance,
    answers_of,
    block_of,
    home_of,
    predecessor,
)
from lepton_lib.operations.journal import Journal
from lepton_lib.operations.report import distributions, write_report
from lepton_lib.operations.service import read_service
from lepton_lib.serving import read_log, signing
from lepton_lib.serving.releases import current_version, folder_of

Tell = Callable[[str], None]
FORM = 1  # of the JSON that is written; a change that a reader would notice raises it


def monitor(
    run_dir: str | Path,
    *,
    act: bool = False,
    metrics: str | None = None,
    trust: Sequence[str] = (),
    now: float | None = None,
    tell: Tell | None = None,
) -> str:
    """Judge what the log has got since the last window, write the report, and with ``act`` do what was decided.

    Called again after it was killed, at whichever moment, it goes on from there: a window's rows
    are recorded with its decision, and each step of an act can be taken again.

    Args:
        run_dir: A run folder that was served from.
        act: Retrain, promote and roll back, instead of only saying so.
        metrics: The service's address, whose own signals (rate, errors, latency, saturation) are
            then judged, too.
        trust: Public keys whose signature under a release counts, besides the user's own.
        now: POSIX seconds; the clock's if not given.
        tell: Gets a sentence for every step.

    Returns:
        What to do next, in a sentence.

    Raises:
        RunError: There is no service or log, another monitor is at work, or ``metrics`` is no
            address. A service that doesn't answer is a finding, not an error.
        NotebookError: A notebook failed in retraining; the next call takes it up again.
    """
    run, say = Run(run_dir), tell or (lambda _: None)
    now = time.time() if now is None else now
    keys = [*trust, signing.public_key()] if trust else None
    current_version(run_dir)  # says what is missing, before a folder is made
    case = load_case(
        json.loads((folder_of(run_dir) / "manifest.json").read_text(encoding="utf-8"))["case"]
    )
    with exclusive_lock(run.folder / "monitoring"), contextlib.closing(Journal(run.folder)) as book:
        watched = Watched(run, case, book, run.folder / "service" / "predictions.sqlite", keys)
        if metrics is not None:
            book.note(reading := read_service(metrics, next(iter(book.readings(1)), None), now))
            say(f"service: {'; '.join(reading['reasons']) or 'nothing wrong'}")
        if act:
            advance(watched, say)
        fresh = book.fresh(watched.log)
        if len(fresh) >= case.policy.min_rows:
            say(_judge_window(watched, read_log(watched.log, case, fresh), now))
            fresh = []
        else:
            say(f"{len(fresh)} of {case.policy.min_rows} new rows: waiting for more")
        if act:
            advance(watched, say)
        return write_report(run, case, book, waiting=len(fresh))


def watch(
    run_dir: str | Path,
    *,
    every: float,
    act: bool = False,
    metrics: str | None = None,
    trust: Sequence[str] = (),
    tell: Tell | None = None,
) -> None:
    """`monitor` every so many seconds, until interrupted; the pause doesn't heed the clock on the wall."""
    while True:
        monitor(run_dir, act=act, metrics=metrics, trust=trust, tell=tell)
        time.sleep(every)


def _judge_window(watched: Watched, fresh: pd.DataFrame, now: float) -> str:
    run, case, book, log, _ = watched
    version, policy = current_version(run.folder), case.policy
    home = home_of(run, version)
    reference = _reference(watched, home, version)
    inputs = fresh[[column.name for column in case.inputs]]
    own = (fresh["log.model_version"] == version).to_numpy()
    answers = answers_of(case, fresh)
    report = drift_report(
        reference,
        inputs,
        case,
        predictions=(None, answers[own]) if own.any() else None,
        level=policy.level,
        min_rows=policy.min_rows,
    )
    new = book.told(log, version)
    # fewer are kept for the next window
    told = read_log(log, case, new if len(new) >= policy.min_labels else [])
    labels, given = told[TARGET].to_numpy(), answers_of(case, told)
    # in time neighbours err together: judged alone they would be too much evidence
    block = block_of(home)
    change: Interval | None = None
    versus: Interval | None = None
    gap_to_previous: dict[str, Any] | None = None
    if len(told):
        losses = row_losses(case, labels, given)
        change = change_in_mean(Moments(*reference.about["loss"]), losses, block=block)
        if (before := predecessor(book, version)) is not None:
            old = watched.scorer(home_of(run, before)).probabilities(encode(told, case)[0])
            gap = moments(losses - row_losses(case, labels, old), block=block)
            versus = confidence_sequence([*_earlier_gaps(book, version, before), gap])
            gap_to_previous = {"version": before, "moments": list(gap)}
    problems = count_problems(inputs, case)
    number = len(book.windows()) + 1
    told_of_service = [
        reason for each in book.readings(-1, after=number - 2) for reason in each["reasons"]
    ]
    signals = Signals.from_reports(
        report,
        problems,
        max_broken=policy.max_broken,
        loss_change=change,
        versus_previous=versus,
        service=dict.fromkeys(told_of_service),
    )
    state, decision = judge(book.state(), signals, policy, now)
    window = {
        "form": FORM,
        "window": number,
        "time": datetime.fromtimestamp(now, UTC).isoformat(timespec="seconds"),
        "first": str(fresh["log.time"].iloc[0]),
        "last": str(fresh["log.time"].iloc[-1]),
        "rows": len(fresh),
        "labels": len(told),
        "model_version": version,
        "decision": {"action": decision.action, "reasons": decision.reasons},
        "state": list(state),
        "signals": asdict(signals),
        "gap_to_previous": gap_to_previous,
        "drift": report.to_dict(),
        "problems": problems.to_dict("records"),
        "performance": performance(case, labels, given, seed=0, block=block),
        "estimate": estimate_performance(case, answers, seed=0),
        "groups": _groups(case, fresh, answers, told),
        "distributions": distributions(
            reference, Reference.from_frame(inputs, case, answers, complete=False)
        ),
    }
    acts = decision.action == "roll back" or (
        decision.action == "retrain" and book.open_act() is None
    )
    book.record(window, fresh.index, told.index, act=acts)
    return f"window {number}: {len(fresh)} rows, {len(told)} labels: {decision.action}"


def _earlier_gaps(book: Journal, version: str, before: str) -> list[Moments]:
    """How far the version lay behind its predecessor in each window since it was promoted."""
    windows = takewhile(lambda w: w["model_version"] == version, reversed(book.windows()))
    gaps = [window["gap_to_previous"] for window in windows if window.get("gap_to_previous")]
    return [Moments(*gap["moments"]) for gap in reversed(gaps) if gap["version"] == before]


def _groups(
    case: Case, fresh: pd.DataFrame, answers: np.ndarray, told: pd.DataFrame
) -> list[dict[str, Any]]:
    """Rates among the new rows, gaps among the newly labelled."""
    if not case.sensitive:
        return []
    both, gap = ["column", "group"], ["labelled", "gap", "gap_low", "gap_high", "judged"]
    rates = group_performance(fresh, case, answers, seed=0).drop(columns=gap)
    if len(told):
        gaps = group_performance(told, case, answers_of(case, told), told[TARGET], seed=0)
        rates = rates.merge(gaps[both + gap], on=both, how="left")
    return [{str(key): value for key, value in line.items()} for line in rates.to_dict("records")]


def _reference(watched: Watched, home: Run, version: str) -> Reference:
    """The summaries of what that model learnt from, stored when they are first made."""
    case, path = watched.case, watched.run.folder / "monitoring" / f"reference-{version}.parquet"
    with contextlib.suppress(DataError):
        return Reference.load(path)
    train, validation = (
        pd.read_parquet(home.path(f"data/{part}.parquet")) for part in ("train", "validation")
    )
    rows, labels = encode(validation, case)
    answers = watched.scorer(home).probabilities(rows)
    loss = moments(row_losses(case, labels, answers), block=block_of(home))
    Reference.from_frame(train, case, answers, version=version, loss=list(loss)).save(path)
    return Reference.load(path)
