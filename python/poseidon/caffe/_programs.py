"""The programs of Poseidon that do what no process with torch may: read data bases and image files, draw nets."""
import os
import pathlib
import shutil
import sysconfig


def path_of(name):
    """In the build folder beside this package's, in the environment's folder of programs, or on PATH."""
    built = pathlib.Path(__file__).absolute().parents[3] / "bin" / name
    installed = pathlib.Path(sysconfig.get_path("scripts")) / name
    for candidate in (built, installed):
        if candidate.exists():
            return str(candidate)
    found = shutil.which(name)
    if found is None:
        raise FileNotFoundError(f"there is no program {name}: not as {built} or {installed}, nor on PATH")
    return found


def tell_engine():
    """Data layers start their reader by this name; the engine would look beside Python's own program."""
    if "POSEIDON_DATA_PROGRAM" in os.environ:
        return
    try:
        os.environ["POSEIDON_DATA_PROGRAM"] = path_of("poseidon-data")
    except FileNotFoundError:
        pass  # a net without data layers needs none, and one with them says what is missing
