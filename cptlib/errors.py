"""What can go wrong through no fault of the code: one sentence each, with the place and the way out."""


class CptlibError(Exception):
    """The base of all errors that cptlib raises by itself."""


class CorpusError(CptlibError, ValueError):
    """A corpus that cannot be used: which file, which line, and how to mend it."""
