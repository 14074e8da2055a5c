"""Everything lawkit refuses is raised as one family of errors: what was wrong, where, and what to do next."""


class LawkitError(Exception):
    """Base of lawkit's errors; the command line shows its message and exits with 1."""


class RunsError(LawkitError):
    """A runs table that cannot be read or used."""


class LawError(LawkitError):
    """A law, a formula or parameter values that make no sense."""


class FitError(LawkitError):
    """A fit that cannot be done, or a fit folder that cannot be read or written."""


class DrawsError(FitError):
    """Draws of a fit's parameters that cannot be had; the point fit stands.

    Attributes
    ----------
    interrupted
        Whether Ctrl-C is why.
    """

    def __init__(self, message: str, interrupted: bool = False) -> None:
        super().__init__(message)
        self.interrupted = interrupted


class OptimizeError(LawkitError):
    """A mixture problem or a design problem without an acceptable answer."""


class ReportError(LawkitError):
    """A figure or a report that cannot be made or written."""


class BackendError(LawkitError):
    """A run that a backend cannot do, or that failed."""


class StudyError(LawkitError):
    """A study whose file, folder or store cannot be used."""


class CorpusError(LawkitError):
    """Text that cannot be read, or a corpus that cannot be built or used."""


class GeneratorError(LawkitError):
    """Synthetic text that cannot be generated: a server, a model or a folder that cannot be used."""
