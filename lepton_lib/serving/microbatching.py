"""Work shared by the requests of one tick of the event loop, none of them waiting for a clock."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class MicroBatcher(Generic[Item, Result]):
    """Work that is cheaper for many items at once: those of one tick of the loop share a call.

    Nothing is held back to let a batch grow: what has come when the loop comes round is worked on.
    A lone request doesn't wait, and a busy service makes its batches by being busy.

    Args:
        work: From the items, in the order in which they came, to a result for each.
        apart: Errors that a single item may cause: each item is then worked on by itself, so that
            only those at fault fail. Any other error fails them all.
    """

    def __init__(
        self,
        work: Callable[[list[Item]], Sequence[Result]],
        *,
        apart: tuple[type[Exception], ...] = (),
    ) -> None:
        self._work = work
        self._apart = apart
        self._pending: list[tuple[Item, asyncio.Future[Result]]] = []

    async def __call__(self, item: Item) -> Result:
        """The item's result, or the error that its work raised."""
        if not self._pending:
            self._loop = asyncio.get_running_loop()
            self._loop.call_soon(self._flush)
        done: asyncio.Future[Result] = self._loop.create_future()
        self._pending.append((item, done))
        return await done

    def _flush(self) -> None:
        pending, self._pending = self._pending, []
        try:
            results = self._work([item for item, _ in pending])
        except Exception as error:  # whatever it is, each request raises it: none may wait for ever
            if len(pending) > 1 and isinstance(error, self._apart):
                for one in pending:
                    self._pending = [one]
                    self._flush()
                return
            for _, done in pending:
                if not done.done():  # its client may have gone
                    done.set_exception(error)
            return
        for (_, done), result in zip(pending, results, strict=True):
            if not done.done():
                done.set_result(result)
