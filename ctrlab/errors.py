"""All expected errors of ctrlab.

    CtrlabError                 message may be shown to a user as it stands
      ConfigError(ValueError)   a setting is out of range or unknown
      UnknownNameError(LookupError)  no registered object, artifact or job has this name
      DataError                 a file or table cannot be read as a CTR dataset
        FileReadError           the operating system failed to read a raw file; may succeed later
      SpectrumError             features from which no spectrum can be computed
      CompressionError          a plan that cannot be applied to this model
      StorageError              the store or an artifact's files are missing or damaged
        StoreUnavailableError   the store is locked or cannot be reached at the moment
      JobCancelled              a job stopped because that was requested

A message states what was given, what is allowed and what to do next.
"""


class CtrlabError(Exception):
    """Base of all expected errors; `str(error)` is one sentence that may be shown to the user.

    >>> import ctrlab
    >>> try:
    ...     ctrlab.FitConfig(epochs=0)
    ... except ctrlab.CtrlabError as error:
    ...     print(type(error).__name__)
    ConfigError
    """


class ConfigError(CtrlabError, ValueError):
    """A configuration is invalid; the message lists every fault at once."""


class UnknownNameError(CtrlabError, LookupError):
    """A name that is not registered or stored; the message lists the names that are."""


class DataError(CtrlabError):
    """A raw file or table cannot be used as it is."""


class FileReadError(DataError):
    """The operating system failed to read a raw file (I/O error, lost network drive); the same call may succeed later."""


class SpectrumError(CtrlabError):
    """A spectrum cannot be computed from these features."""


class CalibrationWarning(UserWarning):
    """Spectra were collected from fewer rows than a layer has outputs."""


class CompressionError(CtrlabError):
    """A rank plan does not fit the model it was applied to."""


class ServingError(CtrlabError):
    """A model cannot be served as it is, or a bundle is missing, damaged or answers otherwise than it should."""


class StorageError(CtrlabError):
    """The store, or a file it points to, is missing, damaged or of another version."""


class StoreUnavailableError(StorageError):
    """The store is locked, full or cannot be reached; the same call may succeed later."""


class JobCancelled(CtrlabError):
    """The job stopped because its cancellation was requested."""
