"""The two errors that a person sees as one line: what is wrong, where, and the remedy."""


class Error(Exception):
    """A run could not be carried out (exit code 1): a corrupt file, a full disk, a non-finite loss."""


class UsageError(Error, ValueError):
    """What was asked for is wrong (exit code 2): a missing file, an unknown key, a pattern that matches nothing."""


def nearest(name: str, known) -> str:
    """Return `"; did you mean 'x'?"` for the known name closest to `name`, else the list of known names."""
    import difflib

    known = sorted(str(k) for k in known)
    close = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(known)}"
