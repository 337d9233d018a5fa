"""What a user can get wrong: each mistake gives one sentence that says what, where and what to do, and leaves nothing behind."""
import contextlib
import os
import random
import re
import shutil
import socket
import subprocess

import pytest
from support import job
from support.processes import of_job

WRONG_USAGE, WRONG_INPUT, JOB_FAILED, SYSTEM = 2, 3, 4, 5


@pytest.fixture
def refused(lenet):
    """Trains with something that is wrong, and returns the sentence that it ends with."""
    def train(solver, *flags, code=WRONG_INPUT, workers=2, **environment):
        before = files_of(lenet.folder)
        arguments = lenet.arguments(solver, workers, *flags)
        # The job's secret would be seen among what is left behind.
        environment["XDG_RUNTIME_DIR"] = str(lenet.folder)
        done = job.run(lenet.poseidon, *arguments, cwd=lenet.folder, **environment).expect(code)
        return the_sentence(done, lenet, before, "poseidon train: ")
    return train


def the_sentence(done, lenet, before, prefix):
    # A busy machine may have had to say first whom it waits for.
    beside = r"the workers' logs are .*/worker-\*\.log$|^poseidon train: waiting for .* since \d"
    said = [line for line in done.err.splitlines() if not re.search(beside, line)]
    # "poseidon: " where the solver's own text is at fault: it is read before there is a job.
    assert len(said) == 1, f"one sentence was expected:\n{done.err}"
    assert said[0].startswith((prefix, "poseidon: ")), said[0]
    assert "terminate" not in done.err and "exception" not in done.err
    assert of_job(lenet.run_folder) == []
    # The plan is known before training begins; logs are what a user looks into next.
    left = [path for path in files_of(lenet.folder) - before
            if not re.fullmatch(rf"{lenet.run_folder}/(worker-\d+\.log|train\.log|plan\.json)", path)]
    assert left == [], "something was left behind"
    return said[0]


@pytest.fixture
def small_disk(tmp_path_factory):
    """options ("size=65536", "ro") -> a folder on a file system of its own with these."""
    with contextlib.ExitStack() as mounted:
        def mount(options):
            folder = tmp_path_factory.mktemp("disk")
            if os.getuid() != 0:
                pytest.skip("only root may mount a small file system")
            done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, text=True)
            if done.returncode != 0:
                pytest.skip(f"a small file system cannot be mounted here: {done.stderr.strip()}")
            mounted.callback(subprocess.run, ["umount", folder], check=True)
            return folder
        yield mount


def files_of(folder):
    return {str(path) for path in folder.rglob("*") if not path.is_dir()}


def replaced(*pairs):
    """An edit of a prototxt: the first `old` becomes `new`, for each pair."""
    def edit(text):
        for old, new in pairs:
            assert old in text, f"the example's net has changed; it has no {old!r} any more"
            text = text.replace(old, new, 1)
        return text
    return edit


def place_of(path, text, occurrence=0):
    """FILE:LINE:COLUMN of a piece of text in a file, counted from 1."""
    content = path.read_text()
    at = -1
    for _ in range(occurrence + 1):
        at = content.index(text, at + 1)
    return f"{path}:{content.count(chr(10), 0, at) + 1}:{at - content.rfind(chr(10), 0, at)}"


def expect(sentence, *words):
    for word in words:
        assert str(word) in sentence, f"{word!r} is not in: {sentence}"


# --- Prototxt


def test_a_missing_solver(lenet, refused):
    expect(refused(lenet.folder / "none.prototxt"), f"cannot read {lenet.folder}/none.prototxt: No such file or directory")


def test_a_solver_that_names_a_missing_net(lenet, refused):
    solver = lenet.solver(lenet.folder / "none.prototxt")
    expect(refused(solver), place_of(solver, "net:"), f"cannot read {lenet.folder}/none.prototxt: No such file or directory")


def test_a_net_where_a_solver_should_be(lenet, refused):
    net = lenet.net(8)
    expect(refused(net), place_of(net, "name:"), '"name" is not a field of SolverParameter')


def test_an_unknown_field_of_the_solver(lenet, refused):
    solver = lenet.solver(lenet.net(8), lr_polcy='"inv"')
    expect(refused(solver), place_of(solver, "lr_polcy"),
           '"lr_polcy" is not a field of SolverParameter', "did you mean lr_policy?")


# What is changed in the example's net, what the sentence is about (which is in the text then), and what it says.
NETS = {
    "malformed": ([("stride: 1", "stride: ) 1")], ") 1", "Expected integer", 'in layer "conv1"'),
    "a word for a number": ([("num_output: 20", "num_output: many")], "many", "Expected integer, got: many", 'in layer "conv1"'),
    "an unknown field": ([("stride: 1", "strde: 1")], "strde",
                         '"strde" is not a field of convolution_param', "did you mean stride?", 'in layer "conv1"'),
    "an unknown layer type": ([('"Convolution"', '"Convolutoin"')], 'type: "Convolutoin"',
                              'layer "conv1" is of type "Convolutoin"', "did you mean Convolution?"),
    "an unknown value": ([("pool: MAX", "pool: MAXIMUM")], "MAXIMUM",
                         '"MAXIMUM" is not a value of pool', "MAX, AVE and STOCHASTIC", 'in layer "pool1"'),
    "an unknown blob": ([('bottom: "pool1"', 'bottom: "pol1"')], 'bottom: "pol1"',
                        'layer "conv2" (Convolution) reads blob "pol1"', "did you mean pool1?"),
    "a layer without outputs": ([("num_output: 20", "num_output: 0")], "num_output: 0",
                                'layer "conv1" (Convolution) needs num_output, at least 1'),
    "a data base of another kind": ([("backend: LMDB", "backend: LEVELDB")], 'layer {\n  name: "digits"',
                                    'layer "digits" (Data) cannot read its records', "is an LMDB and was to be read as a LevelDB",
                                    "write backend: LMDB"),
    "a batch of nothing": ([("batch_size: 8", "batch_size: 0")], "batch_size: 0", "needs batch_size, at least 1"),
}


@pytest.mark.parametrize("case", NETS)
def test_a_net_with(lenet, refused, case):
    changes, about, *words = NETS[case]
    net = lenet.net(8, edit=replaced(*changes))
    expect(refused(lenet.solver(net)), place_of(net, about) + ": ", *words)


def test_a_net_whose_last_brace_is_missing(lenet, refused):
    net = lenet.net(8, edit=lambda text: text.rstrip().removesuffix("}"))
    expect(refused(lenet.solver(net)), f"{net}:", 'the file ends inside layer; a } is missing (in layer "loss")')


def test_labels_of_another_batch_than_the_scores(lenet, refused):
    other = 'layer { name: "five" type: "Input" top: "five" input_param { shape { dim: 5 } } }\n'
    net = lenet.net(8, edit=lambda text: replaced(('  bottom: "label"\n  top: "loss"', '  bottom: "five"\n  top: "loss"'),
                                                  ('layer {\n  name: "accuracy"', other + 'layer {\n  name: "accuracy"'))(text))
    expect(refused(lenet.solver(net)), f"{net}:", 'layer "loss" (SoftmaxWithLoss)', 'scores "ip2" are [8, 10]',
           'labels "five" are [5]')


def test_a_kernel_larger_than_its_image(lenet, refused):
    net = lenet.net(8, edit=replaced(("kernel_size: 5", "kernel_size: 55")))
    expect(refused(lenet.solver(net)), f"{net}:", 'layer "conv1" (Convolution)', "55", 'bottom "data" is [8, 1, 28, 28]')


# --- Data bases


@pytest.fixture
def own_data(lenet, digits):
    """A copy of the training data base to damage: its file, and a solver that reads it."""
    folder = lenet.folder / "own_lmdb"
    shutil.copytree(digits / "digits_train_lmdb", folder)
    net = lenet.net(64, edit=replaced((f"{digits}/digits_train_lmdb", str(folder))))
    return folder / "data.mdb", lenet.solver(net, max_iter=30)


def test_a_missing_data_base(lenet, refused, digits):
    net = lenet.net(8, edit=replaced(("digits_train_lmdb", "none_lmdb")))
    expect(refused(lenet.solver(net)), f"{net}:", 'layer "digits"', f"there is no data base {digits}/none_lmdb",
           "counts from the folder where the command was started")


def test_half_a_data_base(refused, own_data):
    data, solver = own_data
    whole = data.stat().st_size
    os.truncate(data, whole // 2)
    expect(refused(solver), f"{data.parent} is truncated", f"has {whole // 2} bytes and should have {whole}",
           "copy or create it again")


@pytest.mark.parametrize("content, words", [(b"", "is empty"), (b"no data base" * 1000, "is not an LMDB file, or it is damaged")],
                         ids=["nothing", "something else"])
def test_a_data_base_that_holds(refused, own_data, content, words):
    data, solver = own_data
    data.write_bytes(content)
    expect(refused(solver), str(data), words)


# Wherever the damage is, also where it hits a page that leads to others.
@pytest.mark.parametrize("tenths", range(1, 10, 2))
def test_a_data_base_with_overwritten_pages(lenet, refused, own_data, tenths):
    data, solver = own_data
    page = 4096
    with data.open("r+b") as file:
        file.seek(data.stat().st_size * tenths // 10 // page * page)
        file.write(random.Random(tenths).randbytes(40 * page))
    sentence = refused(solver)
    expect(sentence, 'layer "digits" (Data) cannot read its records', str(data.parent))
    assert re.search(r"record \d+ \(", sentence), f"which record is not told: {sentence}"
    for log in lenet.run_folder.glob("worker-*.log"):
        assert "signal" not in log.read_text(), "the reader may die of it, the worker may not"


def reader_of_rank_1(lenet, other):
    """A program that reads `other` instead of the data base of the net where it reads for rank 1."""
    program = lenet.folder / "reader"
    program.write_text("#!/usr/bin/env bash\n# Is called as: read --database FOLDER ...\n"
                       f'if [ "$POSEIDON_RANK" = 1 ]; then set -- "${{@:1:2}}" {other} "${{@:4}}"; fi\n'
                       f'exec {lenet.poseidon.parent}/poseidon-data "$@"\n')
    program.chmod(0o755)
    return str(program)


def test_a_data_base_that_differs_on_one_rank(lenet, refused, digits):
    """Rank 1 reads images of 20 x 20 where rank 0 reads 28 x 28, so their first fully connected layers differ."""
    small = lenet.folder / "small_lmdb"
    images = digits / "images"
    job.run(lenet.poseidon, "convert-images", "--gray", "--resize-width", 20, "--resize-height", 20, images, images / "train.txt",
            small).expect()
    sentence = refused(lenet.solver(lenet.net(8)), POSEIDON_DATA_PROGRAM=reader_of_rank_1(lenet, small))
    # 50 channels of 4 x 4 after two poolings of 28 x 28, of 2 x 2 after those of 20 x 20.
    assert re.search(r"rank 0 \(pid \d+ on .*\) has ip1\S* as \[500, 800\]", sentence), sentence
    assert re.search(r"rank 1 \(pid \d+ on .*\) has ip1\S* as \[500, 200\]", sentence), sentence
    expect(sentence, "the workers' models differ", "all workers must build the same net")


def test_a_data_base_that_one_rank_alone_cannot_read(lenet, refused):
    reader = reader_of_rank_1(lenet, "/none/on/this/host")
    expect(refused(lenet.solver(lenet.net(8)), POSEIDON_DATA_PROGRAM=reader, workers=3),
           'layer "digits" (Data)', "there is no data base /none/on/this/host")


# --- Snapshots and models


@pytest.fixture(scope="module")
def trained(poseidon, digits, tmp_path_factory):
    """The folder of a training of three iterations on two workers: a snapshot and a plan. Tests only read it."""
    bench = job.Workbench(poseidon, digits, tmp_path_factory.mktemp("trained"))
    bench.train(bench.solver(bench.net(8), max_iter=3, snapshot_after_train="true"), 2)
    return bench.folder


@pytest.fixture
def snapshot(trained, lenet):
    """Copies of its state and its model, to spoil."""
    folder = lenet.folder / "copied"
    shutil.copytree(trained / "snapshots", folder)
    return folder / "lenet_iter_3.solverstate", folder / "lenet_iter_3.caffemodel"


@pytest.fixture
def solver(lenet):
    """One that could go on with that snapshot."""
    return lenet.solver(lenet.net(8), max_iter=6)


@pytest.fixture
def other_solver(lenet):
    """Of a net with one more output of conv1."""
    net = lenet.net(8, "other.prototxt", edit=replaced(("num_output: 20", "num_output: 21")))
    return lenet.solver(net, "other_solver.prototxt", max_iter=6)


def test_the_snapshot_that_the_others_spoil_is_good(lenet, solver, trained):
    lenet.train(solver, 2, "--snapshot", trained / "snapshots/lenet_iter_3.solverstate")


@pytest.mark.parametrize("flag", ["--snapshot", "--weights"])
def test_arrays_of_another_net(lenet, refused, other_solver, snapshot, flag):
    state, model = snapshot
    expect(refused(other_solver, flag, state if flag == "--snapshot" else model),
           f'{model.name}: layer "conv1" has array 0 as [20, 1, 5, 5]', f"{lenet.folder}/other.prototxt:", "as [21, 1, 5, 5]",
           "it is of another net" if flag == "--snapshot" else "rename the layer to leave it untouched")


def test_a_snapshot_of_another_type_of_numbers(refused, solver, snapshot):
    expect(refused(solver, "--snapshot", snapshot[0], "--dtype", "float64"), f"{snapshot[0]}: is a snapshot in float32",
           "go on with --dtype float32")


def test_a_snapshot_whose_model_has_changed_in_one_byte(refused, solver, snapshot):
    state, model = snapshot
    content = bytearray(model.read_bytes())
    content[len(content) // 2] ^= 1
    model.write_bytes(content)
    state.write_bytes(state.read_bytes().replace(b"/snapshots/", b"/gonefolds/"))  # so that the model beside it is meant
    expect(refused(solver, "--snapshot", state), f"{state}: its model {model} is not the one that was written with it",
           "take both files from one snapshot")


@pytest.mark.parametrize("missing", ["state", "model"])
def test_a_snapshot_without_its(refused, solver, snapshot, trained, missing):
    state, model = snapshot
    if missing == "state":
        state.unlink()
        expect(refused(solver, "--snapshot", state), f"cannot read {state}: No such file or directory")
        return
    model.unlink()
    state.write_bytes(state.read_bytes().replace(b"/snapshots/", b"/gonefolds/"))
    expect(refused(solver, "--snapshot", state), f"{state}: its model {trained}/gonefolds/lenet_iter_3.caffemodel is missing",
           "a snapshot is a pair of files")


@pytest.mark.parametrize("flag, what", [("--snapshot", "a snapshot of a solver (.solverstate)"),
                                        ("--weights", "a trained model (.caffemodel)")])
@pytest.mark.parametrize("content", ["half", "text", "nothing", "the other file"])
def test_a_file_that_is_none(refused, solver, snapshot, flag, what, content):
    file, other = snapshot if flag == "--snapshot" else reversed(snapshot)
    whole = file.read_bytes()
    file.write_bytes({"half": whole[:len(whole) // 2], "text": b"a letter to somebody else\n", "nothing": b"",
                      "the other file": other.read_bytes()}[content])
    sentence = refused(solver, flag, file)
    expect(sentence, f"{file}: is ", what)
    assert "empty" in sentence if content == "nothing" else "damaged" in sentence


def test_weights_that_are_not_there(lenet, refused, solver):
    expect(refused(solver, "--weights", lenet.folder / "none.caffemodel"), "none.caffemodel: No such file or directory")


# --- Flags


# The flags, and what is said of them.
USAGE = {
    "--wrokers 2": ["--wrokers", "--help shows the flags"],
    "--workers 0": ["--workers", "not in range 1 to 1024"],
    "--workers two": ["--workers", "two", "not in range 1 to 1024"],
    "--iterations -5": ["--iterations", "-5", "not in range 0 to"],
    "--port 70000": ["--port", "70000"],
    "--dtype float16": ["--dtype", "float16", "float32", "float64"],
    "--on-interrupt explode": ["--on-interrupt", "explode", "snapshot", "discard"],
    "--scheme pss": ['"pss" is no scheme', "ps, sfb, adam and block", "LAYER=SCHEME"],
    "--scheme auto,ip1=pss": ['"pss" is no scheme', "LAYER=SCHEME"],
    "--bandwidth fast": ['--bandwidth: "fast" is not a bandwidth', "10Gbit"],
    "--staging much": ['--staging: "much" is no number of bytes', "512MiB"],
    "--plan a.json --scheme ps": ["--plan", "--scheme", "give one of them"],
    "--snapshot a.solverstate --weights a.caffemodel": ["--snapshot", "--weights", "give one of them"],
}


@pytest.mark.parametrize("flags", USAGE)
def test_wrong_usage_of(lenet, solver, flags):
    before = files_of(lenet.folder)
    done = job.run(lenet.poseidon, "train", "--solver", solver, *flags.split(), cwd=lenet.folder).expect(WRONG_USAGE)
    assert done.err.startswith("poseidon train: ") and done.err.count("\n") == 1, done.err
    expect(done.err, *USAGE[flags])
    assert files_of(lenet.folder) == before


def test_a_subcommand_that_there_is_not(poseidon):
    expect(job.run(poseidon, "trial").expect(WRONG_USAGE).err, 'no subcommand "trial"', "poseidon --help")


def test_a_scheme_for_a_layer_that_there_is_not(refused, solver):
    expect(refused(solver, "--scheme", "ip3=sfb"), '--scheme ip3=sfb: the net has no layer "ip3" with parameters',
           "did you mean ip")


def test_factors_for_a_convolution(refused, solver):
    expect(refused(solver, "--scheme", "conv1=sfb"), "--scheme conv1=sfb", "layer conv1 has no sufficient factors",
           "only ps is possible")


def test_a_report_that_could_not_be_written(lenet, refused, solver):
    expect(refused(solver, "--report", "none/report.json", code=SYSTEM), "--report none/report.json: its folder does not exist")
    expect(refused(solver, "--report", lenet.folder, code=SYSTEM), f"--report {lenet.folder}: it is a folder")


@pytest.mark.parametrize("flag", ["--report", "--timeline"])
def test_a_file_in_a_folder_that_cannot_be_written(refused, solver, small_disk, flag):
    folder = small_disk("ro")
    expect(refused(solver, flag, folder / "file.json", code=SYSTEM), f"{flag} {folder}/file.json: its folder",
           "cannot be written")


def test_a_run_folder_that_cannot_be_made(lenet, solver):
    (lenet.folder / "file").touch()
    done = job.run(lenet.poseidon, "train", "--solver", solver, "--run-folder", lenet.folder / "file/run").expect(SYSTEM)
    expect(done.err, f"cannot make the run folder {lenet.folder}/file/run: ")


def test_a_run_folder_that_takes_no_logs(solver, poseidon, small_disk):
    folder = small_disk("ro")
    done = job.run(poseidon, "train", "--solver", solver, "--workers", 2, "--run-folder", folder).expect(SYSTEM)
    expect(done.err, f"cannot write the log {folder}/worker-0.log: Read-only file system")


def test_a_port_that_somebody_else_has(refused, solver):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        expect(refused(solver, "--port", port, code=SYSTEM), f"cannot listen on 127.0.0.1:{port}: Address already in use",
               "choose another")


def test_a_snapshot_prefix_that_is_no_place(lenet, refused):
    (lenet.folder / "file").touch()
    bad = lenet.solver(lenet.net(8), max_iter=3, snapshot=2, snapshot_prefix=f'"{lenet.folder}/file/lenet"')
    expect(refused(bad, code=SYSTEM), f'snapshot_prefix "{lenet.folder}/file/lenet": the folder', "cannot be made: ")


def test_half_a_launcher(lenet, solver):
    """Rank alone is not enough to be a worker."""
    done = job.run(lenet.poseidon, "train", "--solver", solver, cwd=lenet.folder, POSEIDON_RANK="0").expect(WRONG_INPUT)
    expect(done.err, "POSEIDON_WORLD_SIZE is not set", "a launcher must set POSEIDON_RANK")


# --- Plans


@pytest.mark.parametrize("change, words", [
    (lambda plan: plan[:len(plan) // 2], ["line "]),
    (lambda plan: "[]", ['it does not begin with "poseidon_plan": 1']),
    (lambda plan: plan.replace('"poseidon_plan": 1', '"poseidon_plan": 2'), ['it does not begin with "poseidon_plan": 1']),
    (lambda plan: plan.replace('"workers": 2', '"workers": 4'), ["it was made for 4 workers, this job has 2"]),
    (lambda plan: plan.replace('"conv2"', '"conv5"'), ['it names layer "conv5" where the model has "conv2"']),
    (lambda plan: re.sub(r'"scheme": "\w+"', '"scheme": "pz"', plan, count=1), ["layer conv1", '"pz" is no scheme']),
    (lambda plan: re.sub(r'"scheme": "\w+"', '"scheme": "sfb"', plan, count=1), ["layer conv1", "no sufficient factors"]),
], ids=["cut", "another thing", "a later version", "for four workers", "of another net", "an unknown scheme",
        "an impossible scheme"])
def test_a_plan_that_is(lenet, refused, solver, trained, change, words):
    text = (trained / "run-1/plan.json").read_text()
    plan = lenet.folder / "bad-plan.json"
    plan.write_text(change(text))
    assert plan.read_text() != text
    expect(refused(solver, "--plan", plan), f"{plan}: the plan cannot be used: ", *words)


def test_a_plan_that_is_not_there(refused, solver):
    expect(refused(solver, "--plan", "none.json"), "cannot read none.json: No such file or directory")


# --- A full disk


# A pair takes 3.4 MB, a model half of it. So the second pair fails at its model, or at its state.
@pytest.mark.parametrize("room, culprit", [(4_500_000, "caffemodel"), (6_200_000, "solverstate")])
def test_a_full_disk_spares_the_older_snapshot(lenet, refused, solver, small_disk, room, culprit):
    disk = small_disk(f"size={room}")
    prefix = {"snapshot_prefix": f'"{disk}/lenet"'}
    often = lenet.solver(lenet.net(8), "often.prototxt", max_iter=9, snapshot=2, **prefix)
    sentence = refused(often, code=SYSTEM)
    expect(sentence, f"no snapshot of iteration 4: cannot write {disk}/lenet_iter_4.{culprit}: No space left on device")
    assert sorted(path.name for path in disk.iterdir()) == ["lenet_iter_2.caffemodel", "lenet_iter_2.solverstate"]
    resumed = lenet.train(solver, 2, "--snapshot", disk / "lenet_iter_2.solverstate")
    assert resumed.report["iterations"] == 4


def test_a_full_disk_under_convert_images(lenet, digits, small_disk):
    disk = small_disk("size=65536")
    images = digits / "images"
    done = job.run(lenet.poseidon, "convert-images", "--gray", images, images / "train.txt", disk / "db").expect(SYSTEM)
    expect(done.err, f"poseidon convert-images: cannot write {disk}/db: ", "is the disk full?")
    assert list(disk.iterdir()) == []


# --- The other subcommands


@pytest.fixture
def trained_model(trained):
    return trained / "snapshots/lenet_iter_3.caffemodel"


@pytest.mark.parametrize("command", [["test", "--weights", "none.caffemodel"], ["time"]], ids=["test", "time"])
def test_a_missing_model_for_poseidon(poseidon, command):
    done = job.run(poseidon, *command, "--model", "none.prototxt").expect(WRONG_INPUT)
    assert done.err == "poseidon: cannot read none.prototxt: No such file or directory\n"


@pytest.mark.parametrize("command", ["test", "time"])
def test_a_solver_instead_of_a_model_for_poseidon(poseidon, solver, trained_model, command):
    weights = ["--weights", trained_model] if command == "test" else []
    done = job.run(poseidon, command, "--model", solver, *weights).expect(WRONG_INPUT)
    expect(done.err, f"poseidon: {solver}:",
           "is not a field of NetParameter; it is one of a solver: are net and solver file mixed up?")


@pytest.mark.parametrize("command, flag, words", [
    ("test", "--iterations", "not in range 1 to 1000000000000"), ("time", "--iterations", "not in range 1 to 1000000"),
    ("test", "--modle", "--modle"), ("time", "--modle", "--modle")])
def test_wrong_flags_of_poseidon(poseidon, lenet, trained_model, command, flag, words):
    weights = ["--weights", trained_model] if command == "test" else []
    done = job.run(poseidon, command, "--model", lenet.net(8), *weights, flag, 0).expect(WRONG_USAGE)
    expect(done.err, f"poseidon {command}: ", flag, words)
    assert done.err.count("\n") == 1


def test_testing_with_weights_of_another_net(poseidon, lenet, trained_model):
    net = lenet.net(8, edit=replaced(("num_output: 500", "num_output: 400")))
    done = job.run(poseidon, "test", "--model", net, "--weights", trained_model).expect(WRONG_INPUT)
    expect(done.err, f'{trained_model}: layer "ip1" has array 0 as [500, 800]', f"({net}:", "as [400, 800]")


def test_testing_with_weights_for_only_some_layers_says_so(poseidon, lenet, trained_model):
    net = lenet.net(8, edit=replaced(('name: "ip2"', 'name: "scores"')))
    done = job.run(poseidon, "test", "--model", net, "--weights", trained_model, "--iterations", 1).expect()
    expect(done.err, f"{trained_model}: not in this net, and passed over: ip2",
           "has nothing for scores, which keep their initial values")


@pytest.fixture
def images(lenet, digits):
    """A folder with two images, and their list."""
    folder = lenet.folder / "images"
    folder.mkdir()
    for name in ("0000.pgm", "0001.pgm"):
        shutil.copy(digits / "images" / name, folder / name)
    (lenet.folder / "list.txt").write_text("0000.pgm 3\n0001.pgm 7\n")
    return folder


def convert(lenet, images, *flags, code=WRONG_INPUT):
    before = files_of(lenet.folder)
    done = job.run(lenet.poseidon, "convert-images", "--gray", *flags, images, lenet.folder / "list.txt", lenet.folder / "db",
                   cwd=lenet.folder).expect(code)
    assert files_of(lenet.folder) == before, "something was left behind"
    assert done.err.startswith("poseidon convert-images: ") and done.err.count("\n") == 1, done.err
    return done.err


@pytest.mark.parametrize("line, words", [
    ("gone.pgm 4", ["gone.pgm: No such file or directory", "--skip-unreadable"]),
    ("0001.pgm seven", ['"0001.pgm seven" is not a path, a blank and a label']),
    ("0001.pgm", ['"0001.pgm" is not a path, a blank and a label'])], ids=["a missing image", "a word as label", "no label"])
def test_a_list_of_images_with(lenet, images, line, words):
    (lenet.folder / "list.txt").write_text(f"0000.pgm 3\n{line}\n")
    expect(convert(lenet, images), f"{lenet.folder}/list.txt:2: ", *words)


def test_a_list_of_no_images(lenet, images):
    (lenet.folder / "list.txt").write_text("\n")
    expect(convert(lenet, images), f"{lenet.folder}/list.txt: lists no image")


def test_a_missing_list_of_images(lenet, images):
    (lenet.folder / "list.txt").unlink()
    expect(convert(lenet, images), f"cannot read {lenet.folder}/list.txt: No such file or directory")


def test_a_missing_folder_of_images(lenet, images):
    expect(convert(lenet, lenet.folder / "none"), f"there is no folder {lenet.folder}/none")


def test_an_unknown_flag_of_convert_images(lenet, images):
    expect(convert(lenet, images, "--grey", code=WRONG_USAGE), "--grey", "--help shows the flags")


def test_a_data_base_that_exists_already(lenet, images):
    job.run(lenet.poseidon, "convert-images", "--gray", images, lenet.folder / "list.txt", lenet.folder / "db").expect()
    old = (lenet.folder / "db/data.mdb").read_bytes()
    expect(convert(lenet, images), f"{lenet.folder}/db exists already", "--overwrite")
    assert (lenet.folder / "db/data.mdb").read_bytes() == old
