"""The house stands: #includes point one way, and what must not meet does not meet.

Folders are listed in docs/architecture.md. Linking finds most wrong arrows; header-only use of a folder below is found here.
"""
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]

# Each folder may include itself and the folders named with it: the list is closed under "above", but for capi, which is to
# translate the public C++ API and nothing else.
CORE = {
    "base": set(),
    "wire": {"base"},
    "runtime": {"base", "wire"},
    "plan": {"base"},
    "store": {"base", "wire", "runtime", "plan"},
    "factor": {"base", "wire", "runtime", "plan"},
    "session": {"base", "wire", "runtime", "plan", "store", "factor"},
    "host": {"base", "wire", "runtime", "plan", "store", "factor", "session"},
    "collective": {"base", "wire", "runtime", "session"},
    "cluster": {"base", "wire", "runtime", "plan", "store", "factor", "session", "host", "collective"},
    "trace": {"base"},
    "replay": {"base", "wire", "runtime", "plan", "store", "factor", "session", "host"},
    "launch": {"base", "wire", "runtime", "plan", "store", "factor", "session", "host", "collective", "cluster"},
    "library": {"base", "wire", "runtime", "plan", "store", "factor", "session", "host", "collective", "cluster", "trace", "launch"},
    "capi": {"base", "library"},
}
CAFFE = {
    "proto": set(),
    "data": {"proto"},
    "layers": {"proto", "data"},
    "net": {"proto", "data", "layers"},
    "solver": {"proto", "data", "layers", "net"},
    "python": {"proto", "data", "layers", "net", "solver"},
    "tools": {"proto", "data"},
}
TORCH = re.compile(r"^(torch|ATen|c10|caffe2)/")
THIRD_PARTY_NEVER_WITH_TORCH = re.compile(r"^(google/protobuf|fmt|spdlog)/|\.pb\.h$")
THIRD_PARTY = re.compile(r"^(asio|spdlog|fmt|nlohmann|CLI|openssl|google|torch|ATen|c10|tensorflow|lmdb|opencv2)\b")


def sources(*folders):
    for folder in folders:
        yield from (path for path in sorted((ROOT / folder).rglob("*")) if path.suffix in (".h", ".cpp"))


def includes(path):
    return re.findall(r'(?m)^\s*#\s*include\s*[<"]([^>"]+)[>"]', path.read_text())


def all_includes(path, seen=None):
    """Also what comes in through our own headers."""
    seen = set() if seen is None else seen
    for name in includes(path):
        if name in seen:
            continue
        seen.add(name)
        for base in (ROOT, ROOT / "src", ROOT / "include", path.parent):
            if (base / name).is_file():
                all_includes(base / name, seen)
                break
    return seen


def test_there_are_sources_to_look_at():
    assert len(list(sources("include", "src", "engines", "apps"))) > 100


def test_every_folder_of_the_core_is_in_the_list():
    assert {path.name for path in (ROOT / "src").iterdir() if path.is_dir()} == CORE.keys()
    assert {path.name for path in (ROOT / "engines/caffe").iterdir() if path.is_dir()} == CAFFE.keys()


@pytest.mark.parametrize("folder", CORE)
def test_a_folder_of_the_core_includes_only_those_above_it(folder):
    wrong = [(path.relative_to(ROOT), name) for path in sources(f"src/{folder}") for name in includes(path)
             if (name.split("/")[0] in CORE and "/" in name and name.split("/")[0] not in CORE[folder] | {folder})
             or name.startswith(("engines/", "apps/"))]
    assert not wrong


@pytest.mark.parametrize("folder", CAFFE)
def test_a_folder_of_the_caffe_engine_includes_only_those_above_it(folder):
    wrong = [(path.relative_to(ROOT), name) for path in sources(f"engines/caffe/{folder}") for name in includes(path)
             if (found := re.match(r"engines/caffe/(\w+)/", name)) and found[1] not in CAFFE[folder] | {folder}]
    assert not wrong


def test_engines_do_not_know_each_other_but_for_caffe_on_torch():
    assert not [(path, name) for path in sources("engines/torch") for name in includes(path)
                if name.startswith("engines/") and not name.startswith("engines/torch/")]


def test_operators_of_tensorflow_stand_on_the_c_interface_alone():
    names = {name for path in sources("engines/tensorflow") for name in includes(path)}
    assert {name for name in names if not name.startswith(("tensorflow/", "engines/tensorflow/"))
            and not re.fullmatch(r"[a-z_]+", name)} == {"poseidon/poseidon.h"}


def test_the_simulated_world_is_seen_by_tests_only():
    assert not [path for path in sources("engines", "apps") for name in includes(path) if name.startswith("runtime/sim/")]
    state_machines = ("src/store", "src/factor", "src/session", "src/host")
    assert not [path for path in sources(*state_machines) for name in includes(path) if name.startswith("runtime/real/")]


# Where a member's lanes meet, and nothing else: docs/decisions/0019-several-lanes.md.
SHARED_BY_LANES = {("src/session/link_budget.h", "atomic"), ("src/session/laned_engine.cpp", "atomic")}


def test_state_machines_have_no_thread_and_no_socket():
    wrong = [(path.relative_to(ROOT), name) for path in sources("src/store", "src/factor", "src/session", "src/host", "src/plan", "src/wire")
             for name in includes(path)
             if name in ("thread", "mutex", "condition_variable", "atomic", "future") or name.startswith(("asio", "sys/socket", "netinet/"))]
    wrong = [(path, name) for path, name in wrong if (path.as_posix(), name) not in SHARED_BY_LANES]
    assert not wrong


def test_no_framework_in_the_core():
    assert not [(path, name) for path in sources("src", "include") for name in includes(path) if TORCH.match(name)]


def test_no_third_party_header_in_the_public_ones():
    assert not [(path, name) for path in sources("include") for name in includes(path) if THIRD_PARTY.match(name)]


def test_the_examples_see_nothing_but_the_public_headers():
    examples = [path for path in sorted((ROOT / "examples").rglob("*")) if path.suffix in (".c", ".cpp")]
    assert len(examples) >= 2
    allowed = re.compile(r"^(poseidon/[a-z]+\.h|[a-z]+(\.h)?)$")
    assert not [(path, name) for path in examples for name in includes(path) if not allowed.match(name)]
    public = {path.name for path in (ROOT / "include/poseidon").iterdir()}
    assert not [(path, name) for path in examples for name in includes(path) if name.startswith("poseidon/") and name.split("/")[1] not in public]


def test_logging_and_its_formatting_stay_out_of_headers():
    assert not [(path, name) for path in sources("src", "engines", "apps") if path.suffix == ".h"
                for name in includes(path) if re.match(r"(spdlog|fmt)/", name)]


def test_torch_meets_neither_protobuf_nor_fmt():
    """The wheel's include folder holds older headers of both, which would be found first."""
    wrong = []
    for path in sources("engines", "apps", "tests"):
        names = all_includes(path)
        if any(TORCH.match(name) for name in names) and any(THIRD_PARTY_NEVER_WITH_TORCH.search(name) for name in names):
            wrong.append(path.relative_to(ROOT))
    assert not wrong
