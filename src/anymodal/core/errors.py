"""The exception that users are meant to read.

The command line prints its one line and exits with status 1; any other exception is a bug and keeps
its traceback.
"""


class AnymodalError(Exception):
    """Bad input or a missing prerequisite: one line with what is wrong and what to do."""


class MediaError(AnymodalError):
    """A file that cannot be decoded: one line with its name and the reason."""
