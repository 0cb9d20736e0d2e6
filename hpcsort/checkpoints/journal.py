"""The journal of a run: results of its steps, from which a later run goes on.

A program's course follows from its input and options alone. So a run that goes on repeats the course from the
beginning and takes the results of steps that are in the journal instead of computing them; inside a loop it goes on
from the last iteration that was kept. The results are the same bytes as those of a run that was never stopped.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Any, TypeVar

from hpcsort.checkpoints.codec import settled
from hpcsort.errors import StoppedError
from hpcsort.parallel import Communicator, SerialComm, together

__all__ = ["Journal", "no_journal"]

Value = TypeVar("Value")
_Place = tuple[str, ...]


class Journal:
    """Results of steps, saved now and then. All methods are collective.

    Parameters
    ----------
    comm : of the run.
    save : writes the journal's content to disk, called on rank 0. None keeps nothing.
    content : what an earlier run saved, on rank 0; None begins anew.
    interval_s : time between two saves.
    stop : names, on any rank, the signal by which the run is asked to end; it then saves and raises. "" goes on.
    next_step : what a user does after such an end.
    """

    def __init__(
        self,
        comm: Communicator,
        save: Callable[[Any], None] | None = None,
        content: Any = None,
        *,
        interval_s: float = 600.0,
        stop: Callable[[], str] = str,
        next_step: str = "",
    ) -> None:
        self._comm, self._save, self._interval_s = comm, save, interval_s
        self._stop, self._next_step = stop, next_step
        self._last = monotonic()
        self._place: list[str] = []
        self._counts: list[dict[str, int]] = [{}]
        steps, loop = content if content is not None else ({}, None)
        self._steps: dict[_Place, Any] = dict(steps)
        self._loop: tuple[_Place, Any] | None = loop

    def step(self, name: str, compute: Callable[[], Value]) -> Value:
        """Return the result of a step: the one in the journal, or else computed and kept.

        Parameters
        ----------
        name : what is done; a step that is met again at the same place counts as another.
        compute : gives the same result on every rank, of kinds that a checkpoint can hold; its arrays become read-only.
        """
        if self._save is None:
            return compute()
        place = self._enter(name)
        known, value = self._comm.bcast((place in self._steps, self._steps.get(place)))
        if not known:
            value = settled(compute())
        self._leave()
        if self._comm.is_root:
            # What was done on the way is no longer needed.
            self._steps = {key: one for key, one in self._steps.items() if key[: len(place)] != place}
            self._steps[place] = value
        if not known:
            self._save_if_due(None)
        return value

    def saved(self, name: str) -> Any:
        """Return what `keep` was given last for the loop ``name`` at this place; None begins it."""
        if self._save is None:
            return None
        kept = None
        if self._loop is not None and self._loop[0] == (*self._place, name):
            kept, self._loop = self._loop[1], None
        return self._comm.bcast(kept)

    def keep(self, name: str, state: Callable[[], Any]) -> None:
        """Save the state of the loop ``name``, if it is time; only then ``state`` is called, by all ranks."""
        if self._save is not None:
            self._save_if_due((name, state))

    def _enter(self, name: str) -> _Place:
        count = self._counts[-1].get(name, 0)
        self._counts[-1][name] = count + 1
        self._place.append(f"{name} ({count + 1})" if count else name)
        self._counts.append({})
        self._comm.enter_phase(", ".join(self._place))
        return tuple(self._place)

    def _leave(self) -> None:
        self._place.pop()
        self._counts.pop()

    def _save_if_due(self, loop: tuple[str, Callable[[], Any]] | None) -> None:
        is_due = self._comm.is_root and monotonic() - self._last >= self._interval_s
        signal, due = self._comm.max((self._stop(), is_due))
        if not (signal or due):
            return
        self._loop = None if loop is None else ((*self._place, loop[0]), loop[1]())
        with together(self._comm):
            if self._comm.is_root and self._save is not None:
                self._save((self._steps, self._loop))
        self._last = monotonic()
        if signal:
            raise StoppedError(f"stopped by {signal} after a checkpoint; {self._next_step}")


def no_journal() -> Journal:
    """Return a journal that keeps nothing and asks nobody."""
    return Journal(SerialComm())
