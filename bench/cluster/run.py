#!/usr/bin/env python3
"""Measures data-parallel training systems on hosts with shaped links, all on this machine. docs/benchmarks.md says how to read it.

    bench/cluster/run.py --models vgg19,alexnet --nodes 4,8 --systems poseidon,poseidon:wfbp,ddp --out bench/results/x.json
    bench/cluster/run.py --matrix --out bench/results/matrix.json      every row of bench/cluster/matrix.py: some hours
    bench/cluster/run.py --check      makes two hosts and sees whether their links carry what they should
    bench/cluster/run.py --clean      takes away what killed runs have left

Systems: poseidon[:auto|ps|sfb|adam|block][:full|wfbp|backward|none][:servers=K[:alone]], ddp (PyTorch DistributedDataParallel over gloo), horovod.
The network is slowed down by the dilation, and so is computing: a line of 1 Gbit/s with dilation 10 stands in for 10 Gbit/s.
Rows that are in the file --out already are not measured again.
"""
import argparse
import os
import pathlib
import shutil
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "bench"))

from cluster import check, matrix, measurement, models, netns, plot, processes, results, systems, table, units  # noqa: E402

_SKIPPED = 77  # the exit code by which ctest and automake know a skipped test
_ITERATIONS_LEAST, _WARM_UP_LEAST = 7, 2


def words(text):
    return [word for word in text.split(",") if word]


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--matrix", action="store_true", help="the rows of bench/cluster/matrix.py instead of --models and --systems")
    parser.add_argument("--models", type=words, default=[], help="descriptions in the models folder, with commas")
    parser.add_argument("--nodes", type=lambda text: [int(word) for word in words(text)], default=[4])
    parser.add_argument("--systems", type=words, default=["poseidon", "ddp"])
    parser.add_argument("--equivalent", type=units.parse_rate, default=units.parse_rate("10Gbit"), metavar="RATE",
                        help="rate of the links that the shaped ones stand in for (default 10Gbit)")
    parser.add_argument("--dilation", type=float, help="default: what the processor needs to carry a dense all-reduce of the model")
    parser.add_argument("--batch", type=int, help="samples per node and iteration instead of the published batch")
    parser.add_argument("--rate", type=float, help="samples per second of one node instead of the published rate")
    parser.add_argument("--iterations", type=int, default=_ITERATIONS_LEAST)
    parser.add_argument("--warm-up", type=int, default=_WARM_UP_LEAST)
    parser.add_argument("--congestion-control", default="cubic", help="of TCP, on every host (default cubic)")
    parser.add_argument("--wait-for-idle", type=float, default=0, metavar="SECONDS",
                        help="before each run, wait up to so long until nothing else keeps the CPU busy")
    parser.add_argument("--models-folder", type=pathlib.Path, default=ROOT / "examples/models")
    parser.add_argument("--poseidon", type=pathlib.Path, default=ROOT / "build/bin/poseidon", help="the program")
    parser.add_argument("--out", type=pathlib.Path, help="JSON file to keep the rows in, and to take them up from")
    parser.add_argument("--plot", type=pathlib.Path, help="PNG file")
    parser.add_argument("--again", action="store_true", help="measure the rows that --out has, too")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--clean", action="store_true")
    options = parser.parse_args()
    if not (options.check or options.clean or options.models or options.matrix):
        parser.error("say --matrix, --models, --check or --clean")
    if options.matrix and options.models:
        parser.error("--matrix has its own models")
    try:
        systems.check_names(options.systems, netns.NODES_MAX - max(options.nodes))
    except ValueError as error:
        parser.error(str(error))
    for model in options.models:
        path = models.path_of(options.models_folder, model)
        if not path.is_file():
            parser.error(f"there is no {path}; --models-folder says where descriptions are")
        if models.rate_of(model) is None and not (options.batch and options.rate):
            parser.error(f"no published rate of {model} is known: give --batch and --rate")
    if min(options.nodes) < 2 or max(options.nodes) > netns.NODES_MAX:
        parser.error(f"--nodes takes 2 to {netns.NODES_MAX}")
    if options.iterations < 1 or options.warm_up < 0 or (options.dilation is not None and options.dilation < 1):
        parser.error("there has to be an iteration, and a dilation of at least 1")
    return options


def obstacle():
    """Why this machine cannot measure, or None."""
    if os.geteuid() != 0:
        return "only root can make network namespaces and shape links"
    missing = [tool for tool in ("ip", "tc", "setpriv", "sysctl") if shutil.which(tool) is None]
    return f"not installed: {', '.join(missing)}" if missing else None


def clean():
    dead, alive = netns.leftovers()
    for name in dead:
        netns.remove_leftovers(name)
        print(f"took away the leftovers of {name}")
    for name in alive:
        print(f"{name} is in use, its process still runs")
    if not dead:
        print("nothing is left over")


def rows_of(options):
    """(task, systems) of all rows that are asked for."""
    if options.matrix:
        wanted = matrix.ROWS
    else:
        wanted = [matrix.Row(model, nodes, options.equivalent, tuple(options.systems), options.batch, options.rate)
                  for model in options.models for nodes in options.nodes]
    for row in wanted:
        published = models.rate_of(row.model)
        path = models.path_of(options.models_folder, row.model)
        task = measurement.Task(model=models.load(path), model_path=path, batch=row.batch or published.batch,
                                samples_per_second=row.samples_per_second or published.samples_per_second, nodes=row.nodes,
                                equivalent=row.equivalent, dilation=options.dilation or 1.0, iterations=options.iterations,
                                warm_up=options.warm_up, congestion_control=options.congestion_control,
                                idle_wait_seconds=options.wait_for_idle)
        yield (task if options.dilation else measurement.dilated(task)), row.systems


def measure_all(options):
    kept = results.Results(options.out)
    shown = []
    if options.iterations < _ITERATIONS_LEAST or options.warm_up < _WARM_UP_LEAST:
        print(f"for trying out only: a row needs {_ITERATIONS_LEAST} iterations after {_WARM_UP_LEAST} of warm-up")
    for task, names in rows_of(options):
        reference = results.reference(task)
        print(f"{task.model['name']}, {task.nodes} nodes: {units.format_rate(task.equivalent)} as {reference['line']} with "
              f"dilation {task.dilation:g}; one node {reference['one_node_seconds']:.3f} s, "
              f"bound {reference['bound_seconds']:.3f} s", flush=True)
        for system in names:
            key = results.key(task, system)
            row = None if options.again else kept.find(key)
            if not results.is_done(row):
                print(f"  {system} ...", flush=True)
                with netns.scratch_folder() as scratch:
                    found = systems.measure(system, task, options.poseidon, scratch, row)
                row = {**key, **reference, **found, "environment": results.environment(options.poseidon)}
                kept.put(row)
            shown.append(row)
            print("  " + table.line(row), flush=True)
    print("\n" + table.header())
    for row in shown:
        print(table.line(row))
    if options.plot:
        print(f"plot: {options.plot}" if plot.draw(shown, options.plot) else "plot: no row has figures")
    return 1 if any(row["status"] == "failed" for row in shown) else 0


def main():
    options = parse()
    reason = obstacle()
    if reason:
        print(f"skipped: {reason}")
        return _SKIPPED
    processes.raise_on_signals()
    try:
        if options.clean:
            clean()
            return 0
        if options.check:
            return 0 if check.run() else 1
        return measure_all(options)
    except processes.Stopped as stopped:
        print(f"\nstopped by {stopped}; all hosts are taken away", file=sys.stderr)
        return 130
    except processes.Failed as failure:
        print(f"failed: {failure}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
