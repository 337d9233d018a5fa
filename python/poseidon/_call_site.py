"""Where in the script, or in a library that it uses, something was called."""
import sys

_NOT_THE_SCRIPTS = {"keras", "poseidon", "tensorflow", "torch"}


def call_site():
    """(file, line) of the innermost frame that is neither a framework's nor Poseidon's; None where there is none, as on a thread of autograd's."""
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_globals.get("__name__", "").partition(".")[0] not in _NOT_THE_SCRIPTS:
            return frame.f_code.co_filename, frame.f_lineno
        frame = frame.f_back
    return None


def written(site):
    return "an unknown place" if site is None else f"{site[0]}:{site[1]}"
