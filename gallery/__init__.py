"""Published figures remade end to end, and the command line: the only room that imports all the others."""

if __name__ != "effdyn.gallery":
    raise ImportError("this folder is the package effdyn.gallery: pip install -e . and import that")

from .catalogue import ENTRIES, Entry, reproduce

__all__ = ["ENTRIES", "Entry", "reproduce"]
