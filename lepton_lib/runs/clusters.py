"""Dask as the place where a sweep's runs are made: on this machine, or on a cluster that exists.

Knows Dask; doesn't know what it runs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import Executor

from lepton_lib.errors import needs_extra

ATTEMPTS = 3  # how often a run starts again after the process that made it was lost


@contextlib.contextmanager
def dask_executor(scheduler: str | None, jobs: int) -> Iterator[Executor]:
    """An executor for `sweeps.sweep`, whose workers must see its folder and the notebooks.

    Args:
        scheduler: The address of a running scheduler, such as ``tcp://host:8786``; without it
            ``jobs`` processes are started here, which only this machine can reach.
        jobs: How many.

    Raises:
        MissingExtraError: The extra ``scale`` isn't installed.
        OSError: No scheduler answers at the address.
    """
    with needs_extra("scale", "lepton sweep --on dask"):
        from distributed import Client, LocalCluster
    with contextlib.ExitStack() as stack:
        if scheduler is None:
            options = {"threads_per_worker": 1, "dashboard_address": None}
            scheduler = stack.enter_context(
                LocalCluster(n_workers=jobs, **options)
            ).scheduler_address
        client = stack.enter_context(Client(scheduler))
        yield client.get_executor(pure=False, retries=ATTEMPTS)
