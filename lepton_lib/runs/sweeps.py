"""Many runs of one notebook or of the loop, one for each parameter set.

What runs share, they share: steps whose parameters are equal run once and are linked into each
run's folder. Each run that ends is a line of ``runs.jsonl``, so that a sweep that was cut off loses
nothing and repeats nothing. Knows run folders; doesn't know what the steps compute.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from lepton_lib.artefacts import Run, code_hash, exclusive_lock
from lepton_lib.errors import LeptonError, RunError
from lepton_lib.runs import kernels
from lepton_lib.runs.execution import ProgressEvent
from lepton_lib.runs.notebooks import find_notebook, loop_notebooks
from lepton_lib.runs.parameter_sets import folder_name
from lepton_lib.runs.parameters import Value, check_values, find_case, read_parameters
from lepton_lib.runs.pipeline import Limits, run_steps
from lepton_lib.runs.records import (
    JOURNAL,
    Metric,
    RunRecord,
    append_record,
    by_name,
    read_records,
)
from lepton_lib.runs.summary import read_steps
from lepton_lib.utils import sha256_of


@dataclass(frozen=True)
class Task:
    """A run to be made: notebooks and checked values, in a folder that may start from another."""

    folder: Path
    start: Path | None  # the folder of the steps that it shares
    notebooks: tuple[Path, ...]
    values: dict[str, dict[str, Value]]  # by notebook's stem
    swept: dict[str, Value]
    limits: Limits
    retries: int
    fingerprint: str  # of notebooks, case and code
    n_shared: int = 0  # notebooks that have run in ``start``


class Cancelled(Exception):  # noqa: N818  # no error: the sweep was interrupted
    """The sweep ends; what this task has done so far is on disk."""


_stopping = threading.Event()


def chain_of(notebook: str | Path) -> tuple[Path, ...]:
    """The notebooks of a run: the loop's up to this step, or a notebook alone.

    Raises:
        ParameterError: There is no such notebook.
    """
    loop = tuple(loop_notebooks())
    if str(notebook) == "loop":
        return loop
    path = find_notebook(str(notebook))
    return loop[: loop.index(path) + 1] if path in loop else (path,)


def plan(
    notebooks: Sequence[Path],
    sets: Sequence[Mapping[str, object]],
    folder: Path,
    *,
    limits: Limits | None = None,
    retries: int = 0,
) -> tuple[list[Task], list[Task]]:
    """The shared steps, each after those that it starts from, and the runs.

    Raises:
        ParameterError: A set has an unknown name or a wrong value; nothing was run or written.
        CaseError: A case can't be loaded.
    """
    known = {path.stem: read_parameters(path) for path in notebooks}
    checked = [check_values(known, one) for one in sets]
    prints: dict[str, str] = {}
    for case in {_case_of(values) for values in checked}:
        prints[case] = _fingerprint(notebooks, case)
    keys = [_prefixes(notebooks, values) for values in checked]
    count = Counter(key for prefixes in keys for key in prefixes)
    shared: dict[str, Task] = {}
    runs = []
    for one, values, prefixes in zip(sets, checked, keys, strict=True):
        rest = (limits or Limits(), retries, prints[_case_of(values)])
        start, depth = None, 0
        for depth, key in enumerate(prefixes[:-1]):
            if count[key] == 1:
                break
            place, part = folder / "shared" / key, tuple(notebooks[: depth + 1])
            shared.setdefault(key, Task(place, start, part, values, {}, *rest, depth))
            start = place
        swept = {name: _value(values, name) for name in one}
        place = folder / folder_name(swept)
        n_shared = len(shared[start.name].notebooks) if start else 0
        runs.append(Task(place, start, tuple(notebooks), values, swept, *rest, n_shared))
    return sorted(shared.values(), key=lambda task: len(task.notebooks)), runs


def _case_of(values: Mapping[str, Mapping[str, Value]]) -> str:
    return next((str(entry["case"]) for entry in values.values() if "case" in entry), "")


def _fingerprint(notebooks: Sequence[Path], case: str) -> str:
    """A hash of what makes a run beside its parameters: notebooks, case and the library's code."""
    parts = [code_hash(), *map(sha256_of, notebooks)]
    if case and (loaded := find_case({"case": case})):
        parts.append(sha256_of(loaded.path("case.toml")))
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()


def _prefixes(notebooks: Sequence[Path], values: Mapping[str, Mapping[str, Value]]) -> list[str]:
    """A hash of the values of the first notebook, of the first two, and so on."""
    digest, keys = hashlib.sha256(), []
    for path in notebooks:
        own = {name: value for name, value in values[path.stem].items() if name != "run_dir"}
        digest.update(json.dumps([path.stem, own], sort_keys=True).encode())
        keys.append(digest.hexdigest()[:12])
    return keys


def _value(values: Mapping[str, Mapping[str, Value]], name: str) -> Value:
    return next(entry[name] for entry in values.values() if name in entry)


def run_task(task: Task) -> RunRecord:
    """Make one run; a failure is a record, too.

    Raises:
        Cancelled: The sweep was interrupted.
    """
    reasons: list[str] = []
    started = time.monotonic()
    for attempt in range(1, task.retries + 2):
        try:
            _link(task)
            run_steps(
                task.folder,
                task.notebooks,
                task.values,
                progress=_stop_if_asked,
                limits=task.limits,
            )
            return _record(task, "done", started, attempt, reasons)
        except (LeptonError, OSError) as error:
            _stop_if_asked()
            reasons.append(str(error))
    return _record(task, "failed", started, attempt, reasons)


def _stop_if_asked(_: ProgressEvent | None = None) -> None:
    if _stopping.is_set():
        raise Cancelled


def _record(
    task: Task,
    status: Literal["done", "failed"],
    started: float,
    attempts: int,
    reasons: Sequence[str],
) -> RunRecord:
    metrics: dict[str, Metric] = {}
    packages: dict[str, str] = {}
    data: dict[str, str] = {}
    commit = ""
    if (task.folder / "manifest.json").exists():
        for step, entry in read_steps(Run(task.folder)).items():
            metrics |= by_name(entry.metrics)
            packages, commit = entry.packages, entry.commit
            data |= entry.files if step == "01_data" else {}
    return RunRecord(
        task.folder.name,
        task.swept,
        status,
        round(time.monotonic() - started, 2),
        metrics if status == "done" else {},
        attempts,
        " | ".join(reasons),
        packages,
        data,
        commit,
        task.fingerprint,
    )


def _link(task: Task) -> None:
    """Start from the shared steps' files, unless the folder has them already."""
    if task.start is None:
        return
    theirs = Run(task.start).manifest["steps"]
    ours = Run(task.folder).manifest["steps"]
    if theirs == {step: ours.get(step) for step in theirs}:
        return
    for path in sorted(task.start.rglob("*")):
        target = task.folder / path.relative_to(task.start)
        if path.is_dir() or path.name in (".lock", "index.html"):
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        try:
            os.link(path, target)  # files of runs are replaced, never changed
        except OSError:  # a file system without links
            shutil.copy2(path, target)


def run(
    notebook: str | Path,
    *,
    run_dir: str | Path,
    parameters: Mapping[str, object] | None = None,
    limits: Limits | None = None,
) -> RunRecord:
    """Make one run, as `sweep` makes many; what is done in ``run_dir`` isn't done again.

    Args:
        notebook: ``"loop"``, a notebook's name or its path. A step of the loop runs after those
            before it.
        run_dir: The run folder.
        parameters: Values as text or in their own type; the notebooks' defaults for the rest.
        limits: Of time and memory.

    Raises:
        ParameterError: An unknown name or a wrong value; nothing was run or written.
        RunError: The run folder can't be used.
        NotebookError: A cell failed.
    """
    started, folder = time.monotonic(), Path(run_dir).resolve()
    _, (task,) = plan(chain_of(notebook), [parameters or {}], folder.parent, limits=limits)
    task = replace(task, folder=folder)
    run_steps(folder, task.notebooks, task.values, limits=task.limits)
    return _record(task, "done", started, 1, ())


Report = Callable[[RunRecord, int, int], None]  # a run that has ended, how many have, of how many


def sweep(
    notebook: str | Path,
    sets: Sequence[Mapping[str, object]],
    *,
    out: str | Path,
    jobs: int | None = None,
    resume: bool = False,
    fail_fast: bool = False,
    limits: Limits | None = None,
    retries: int = 0,
    executor: Executor | None = None,
    report: Report | None = None,
) -> list[RunRecord]:
    """Run a notebook, or the loop, once for each parameter set.

    Args:
        notebook: ``"loop"``, a notebook's name or its path. A step of the loop runs after those
            before it.
        sets: See `parameter_sets.combine`.
        out: The sweep's folder; each run gets one in it.
        jobs: Runs at a time; the number of processors if None.
        resume: Go on with a sweep in ``out``: runs that are done aren't made again.
        fail_fast: Start no run once one has failed; those at work end.
        limits: Of time and memory, for each run.
        retries: How often a run that failed is tried again.
        executor: Where runs are made, such as ``dask.distributed.Client().get_executor()``; then
            its workers must see ``out``. Processes forked here if None.
        report: Called after each run.

    Returns:
        A record for each run that has ended, in the order of the sets.

    Raises:
        ParameterError: A set has an unknown name or a wrong value; nothing was run or written.
        RunError: The folder can't be used, or holds a sweep and ``resume`` is false.
        KeyboardInterrupt: The sweep was interrupted; ``out`` holds what was done.
    """
    folder = Path(out)
    shared, runs = plan(chain_of(notebook), sets, folder.resolve(), limits=limits, retries=retries)
    if not resume and (folder / JOURNAL).exists():
        remedy = "Go on with it by --resume, or choose another folder."
        raise RunError(str(folder), "a folder that holds a sweep", "a new one", remedy)
    with exclusive_lock(folder, remedy="Wait for that sweep to end."):
        records = read_records(folder)
        todo = [task for task in runs if not _still_good(task, records.get(task.folder.name))]
        needed = {task.start for task in todo}
        for task in reversed(shared):
            if task.folder in needed:
                needed.add(task.start)
        shared = [task for task in shared if task.folder in needed]
        _stopping.clear()
        n_done = len(runs) - len(todo)
        with _pool(executor, jobs) as pool:
            _make_shared(pool, shared)
            for record in _completed(pool, todo, fail_fast):
                append_record(folder, record)
                n_done += 1
                if report is not None:
                    report(record, n_done, len(runs))
        records = read_records(folder)
    return [records[task.folder.name] for task in runs if task.folder.name in records]


def _still_good(task: Task, record: RunRecord | None) -> bool:
    return record is not None and record.status == "done" and record.fingerprint == task.fingerprint


@contextlib.contextmanager
def _pool(executor: Executor | None, jobs: int | None) -> Iterator[Executor]:
    """The executor, or threads; after an error or Ctrl-C no run goes on."""
    _stopping.clear()
    pool = executor or ThreadPoolExecutor(jobs or os.cpu_count())
    try:
        yield pool
    except BaseException:
        _stopping.set()
        kernels.end_server()  # the runs at work fail at once, and record nothing
        raise
    finally:
        if executor is None:
            pool.shutdown(cancel_futures=True)


def _make_shared(pool: Executor, shared: Sequence[Task]) -> None:
    """Make the shared steps, one depth after the other.

    The runs that start from one that failed fail there, too, and say why.
    """
    for depth in sorted({len(task.notebooks) for task in shared}):
        level = [task for task in shared if len(task.notebooks) == depth]
        for _ in _completed(pool, level, fail_fast=False):
            pass


def _completed(executor: Executor, tasks: Sequence[Task], fail_fast: bool) -> Iterator[RunRecord]:
    waiting: set[Future[RunRecord]] = {executor.submit(run_task, task) for task in tasks}
    while waiting:
        ended, waiting = wait(waiting, return_when=FIRST_COMPLETED)
        for future in ended:
            record = future.result()
            yield record
            if fail_fast and record.status == "failed":
                for other in waiting:
                    other.cancel()
                waiting = {other for other in waiting if not other.cancelled()}
