"""Every command that the documents and the help texts show does what it says, as shown.

Commands stand in ```sh blocks of README.md and docs/, and under "Examples" of the help texts. They run in order, in a copy of
the source tree without its .git, so that what one makes the next may use; and of their iterations a tenth, since what the others
compute is tested elsewhere. scripts/ is left out: these tests are themselves
started by one of them, and the quickstart's steps are documented commands too.
"""
import pathlib
import re
import shlex
import shutil
import subprocess
import sys

import pytest
from support import job

DOCUMENTS = sorted([job.ROOT / "README.md", *(job.ROOT / "docs").rglob("*.md")])
SUBCOMMANDS = ["run", "train", "test", "time", "replay", "plan", "devices", "features", "convert-model",
               "convert-cifar", "convert-images", "convert-mnist", "draw-net", "image-mean", "parse-log", "partition-data", "plot-log",
               "upgrade-net", "upgrade-solver"]
OURS = ("build/bin/poseidon", "poseidon", "examples/", "python examples/", "ln -sf ", "./caffe ", "PYTHONPATH=build/python python examples/")


def joined(lines):
    """Lines that end with a backslash go on in the next; comments and blanks are dropped."""
    text = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [line.strip() for line in text.splitlines() if line.strip() and not line.strip().startswith("#")]


def of_document(path):
    """The shell commands of a Markdown file."""
    blocks = re.findall(r"(?ms)^```sh\n(.*?)^```$", path.read_text())
    return [command for block in blocks for command in joined(block.splitlines())]


def of_help(poseidon, *subcommand):
    text = subprocess.run([poseidon, *subcommand, "--help"], check=True, text=True, stdout=subprocess.PIPE, timeout=300).stdout
    examples = text[text.index("Examples"):].splitlines()[1:]
    return joined(line for line in examples if line.startswith("  "))


def shortened(text):
    """A tenth of the iterations, in a command or in a file of the examples: of 20 and more."""
    return re.sub(r"(max_iter: |snapshot: |test_interval: |_iter_|iterations )(\d+)\b",
                  lambda found: found[1] + str(int(found[2]) // (10 if int(found[2]) >= 20 else 1)), text)


@pytest.fixture(scope="module")
def tree(poseidon, tmp_path_factory):
    """A copy of what the commands use, with the example's data as `examples/digits/create_lmdb.sh` makes it."""
    folder = tmp_path_factory.mktemp("tree")
    shutil.copytree(job.ROOT / "examples", folder / "examples", ignore=shutil.ignore_patterns("*_lmdb", "images", "snapshots"))
    for path in [*(folder / "examples").rglob("*.prototxt"), *(folder / "examples").rglob("*.sh")]:
        path.write_text(shortened(path.read_text()))
    (folder / "build").mkdir()
    (folder / "build" / "bin").symlink_to(poseidon.parent)
    (folder / "build" / "python").symlink_to(poseidon.parents[1] / "python")
    run(folder, "examples/digits/create_lmdb.sh")
    run(folder, "build/bin/poseidon train --solver examples/digits/lenet_solver.prototxt --workers 2")
    return folder


def run(folder, command):
    # As after `. .venv/bin/activate`.
    paths = {"PATH": f"{folder / 'build' / 'bin'}:{pathlib.Path(sys.executable).parent}:{pathlib.Path('/usr/bin')}:/bin"}
    done = subprocess.run(["bash", "-c", shortened(command)], cwd=folder, env=job.environment(**paths), text=True, timeout=job.SECONDS_MAX,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, f"{command}\nended with {done.returncode}:\n{done.stdout[-3000:]}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(job.ROOT)))
def test_a_document_shows_commands_that_work(tree, path):
    for command in of_document(path):
        if command.startswith(OURS):
            run(tree, command)


def test_the_documents_show_nothing_but_what_is_tested_somewhere():
    """A command of another kind is a mistake here, or needs a test of its own."""
    known = (*OURS, ". .venv/bin/activate", "scripts/", "cmake ", "ctest ", ".venv/bin/python -m pytest", "bench/", "POSEIDON_SWARM_")
    assert not [(str(path.relative_to(job.ROOT)), command) for path in DOCUMENTS for command in of_document(path)
                if not command.startswith(known)]


def test_readme_shows_how_to_begin():
    commands = of_document(job.ROOT / "README.md")
    assert "scripts/quickstart" in [shlex.split(command, comments=True)[0] for command in commands]
    assert any(command.startswith("build/bin/poseidon train") for command in commands)


@pytest.mark.parametrize("subcommand", [[], *([name] for name in SUBCOMMANDS)], ids=lambda names: " ".join(names) or "poseidon")
def test_a_help_text_shows_commands_that_work(poseidon, tree, subcommand):
    commands = of_help(poseidon, *subcommand)
    assert commands
    for command in commands:
        run(tree, command)


def test_links_between_documents_lead_somewhere():
    broken = []
    for path in [*DOCUMENTS, job.ROOT / "CONTRIBUTING.md"]:
        text = re.sub(r"(?ms)^```.*?^```$", "", path.read_text())  # in code the same signs may be a C++ lambda
        for target in re.findall(r"\]\(([^)#\s]+)", text):
            if not re.match(r"[a-z]+:", target) and not (path.parent / target).exists():
                broken.append((str(path.relative_to(job.ROOT)), target))
    assert not broken


def test_code_refers_to_documents_that_exist():
    missing = []
    for folder in ("src", "include", "engines", "apps", "scripts", "tests", "bench", "cmake", "examples"):
        for path in (job.ROOT / folder).rglob("*"):
            if path.suffix in (".h", ".cpp", ".py", ".sh", ".cmake", ".txt", "") and path.is_file() and path.stat().st_size < 1 << 20:
                text = path.read_text(errors="replace")
                missing += [(str(path.relative_to(job.ROOT)), name) for name in re.findall(r"\bdocs/[\w./-]+\.md", text)
                            if not (job.ROOT / name).exists()]
    assert not missing
