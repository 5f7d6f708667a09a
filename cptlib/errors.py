"""What can go wrong through no fault of the code: one sentence each, with the place and the way out."""


class CptlibError(Exception):
    """The base of all errors that cptlib raises by itself."""


class RecipeError(CptlibError, ValueError):
    """A recipe that does not exist, or a value that one of its fields cannot have."""


class CorpusError(CptlibError, ValueError):
    """A corpus that cannot be used: which file, which line, and how to mend it."""


class ModelError(CptlibError):
    """A model that cannot be loaded."""


class DoesNotFit(CptlibError):
    """A run that the GPU's memory does not hold, and the nearest that it does."""


class PreflightError(CptlibError):
    """A check that failed: what is wrong, why it matters, how to mend it."""


class CheckpointError(CptlibError):
    """Checkpoints that cannot be written or gone on from."""


class ExportError(CptlibError):
    """A model that cannot be saved, loaded or sent."""


class ServingError(CptlibError):
    """A server that did not come up."""


class MeasurementError(CptlibError):
    """A measurement that could not be made."""


class NotebookError(CptlibError):
    """A notebook that stopped at a cell: what that said."""


class UsageError(CptlibError, ValueError):
    """A command or a function asked for what there is not."""
