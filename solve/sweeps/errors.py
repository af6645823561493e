"""What can be wrong with the store of a sweep."""

from pathlib import Path


class StoreError(RuntimeError):
    """The store of a sweep cannot be used: it is foreign, damaged, or in use.

    Attributes
    ----------
    store : str
        Where it is.
    reason : str
        What is wrong with it.
    advice : str
        What would work.
    """

    def __init__(self, store: str | Path, reason: str, advice: str) -> None:
        self.store, self.reason, self.advice = str(store), reason, advice
        super().__init__(f"the store {self.store} {reason}\n  {advice}")

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.store, self.reason, self.advice)


class StoreInUse(StoreError):
    """Another sweep is writing to the store."""


class ForeignStore(StoreError):
    """The store holds something else: another sweep, or no sweep at all."""


class DamagedStore(StoreError):
    """The store does not hold what was written to it."""
