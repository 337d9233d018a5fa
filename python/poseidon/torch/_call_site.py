"""Where in the script, or in a library that it uses, something was called."""
import os
import sys

import torch

_NOT_THE_SCRIPTS = (os.path.dirname(torch.__file__) + os.sep, os.path.dirname(os.path.dirname(__file__)) + os.sep)


def call_site():
    """(file, line) of the innermost frame that is neither PyTorch's nor Poseidon's; None where there is none, as on a thread of autograd's."""
    frame = sys._getframe(1)
    while frame is not None:
        if not frame.f_code.co_filename.startswith(_NOT_THE_SCRIPTS):
            return frame.f_code.co_filename, frame.f_lineno
        frame = frame.f_back
    return None


def written(site):
    return "an unknown place" if site is None else f"{site[0]}:{site[1]}"
