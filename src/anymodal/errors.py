"""The one exception that users are meant to read.

`AnymodalError` carries one line that says what is wrong and what to do about it. The command
line prints that line and exits with status 1; everything else that escapes is a bug and keeps
its traceback.
"""


class AnymodalError(Exception):
    """Bad input or a missing prerequisite, told in one line with its remedy."""


class MediaError(AnymodalError):
    """A file that cannot be decoded, with its name and the reason in one line."""
