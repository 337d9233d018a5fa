"""The API reference: it can be made, nothing in the public headers escapes it, and every function there is explained."""
import pathlib
import re
import shutil
import subprocess
import xml.etree.ElementTree as ElementTree

import pytest
from support import job

# Named by the language, or by what they are called: an accessor of Result does what std::expected's does.
_SELF_EXPLAINING = re.compile(r"~|operator|Cluster::Cluster|Result|(^|::)(index|bytes_of|to_string|bytes|elements)$")


@pytest.fixture(scope="module")
def reference():
    if shutil.which("doxygen") is None:
        pytest.skip("doxygen is not installed")
    done = subprocess.run([job.ROOT / "scripts/docs"], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done, job.ROOT / "build/docs"


def functions(folder):
    for path in sorted(folder.glob("xml/*.xml")):
        for member in ElementTree.parse(path).getroot().iter("memberdef"):
            if member.get("kind") == "function":
                name = member.findtext("qualifiedname") or member.findtext("name")
                text = "".join("".join(part.itertext()) for kind in ("briefdescription", "detaileddescription")
                               for part in member.findall(kind)).strip()
                yield name, text


def test_it_is_made_without_a_warning(reference):
    done, folder = reference
    assert done.stderr == ""
    assert (folder / "api/index.html").is_file()


def test_every_function_is_in_it_and_explained(reference):
    _, folder = reference
    found = dict(functions(folder))
    header = pathlib.Path(job.ROOT / "include/poseidon/poseidon.h").read_text()
    declared = set(re.findall(r"^POSEIDON_API [^;(]*?(poseidon_\w+)\(", header, re.MULTILINE))
    assert len(declared) > 20 and declared <= set(found)
    assert {"poseidon::Cluster::join", "poseidon::Session::submit_factors", "poseidon::run_local"} <= set(found)
    assert [name for name, text in found.items() if not text and not _SELF_EXPLAINING.search(name)] == []
