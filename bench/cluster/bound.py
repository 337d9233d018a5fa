#!/usr/bin/env python3
"""The least possible iteration time of data-parallel training with a barrier per iteration, over all schemes of communication.

    bench/cluster/bound.py MODEL.json IMAGES_PER_SECOND BATCH NODES RATE        (RATE as in 10Gbit)

Layer l (1 nearest the input) has forward time f, backward time b (its share of the operations in BATCH / IMAGES_PER_SECOND
seconds), link time c and extra reconstruction time r of the scheme chosen for it. A layer travels after its backward pass and must
be in before its next forward pass:

    T_best = max( F + B + R, max over k of [ sum_{i>=k} (f_i + b_i) + sum_{j<=k} c_j ] )

Schemes of a fully connected layer m x n with K rows per node (numbers received per node; as many are sent):

    ps     2 (P-1)/P m n
    sfb    (P-1) K (m + n)                          extra reconstruction: 2 (P-1) K m n operations
    block  (P-1) (K (m/pr + n/pc) + m n / P)        pr pc = P

Adam's owner receives more than any node with block, so it is never the least. The link carries TCP's share of its rate as payload.
All combinations of schemes are tried where there are few fully connected layers; else a local search with pair moves from three
starts, so the figure may then be a little high.
"""
import dataclasses
import itertools
import json
import math
import pathlib
import sys

if __package__ in (None, ""):
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
    from cluster import units
else:
    from . import units

# Up to here all combinations of schemes are tried: 3^6 = 729.
_FREE_LAYERS_MAX = 6


@dataclasses.dataclass(frozen=True)
class Option:
    """One way for one layer's gradient to travel."""
    scheme: str
    link_seconds: float
    rebuild_seconds: float = 0.0


@dataclasses.dataclass(frozen=True)
class Bounds:
    """Seconds per iteration, at the true rates (not dilated)."""
    one_node: float      # compute alone
    best: float          # T_best
    dense: float         # T_best with every layer as ps, or as a ring: both move the same bytes
    dense_barrier: float  # dense, overlapped with the backward pass only: what an all-reduce before the step can reach
    dense_serial: float  # dense, without any overlap
    schemes: dict        # name of layer -> scheme of `best`, where it is not ps


def options(layer, batch, nodes, floats_per_s, flops_per_s):
    """The ways one layer's gradient can travel; ps first."""
    numbers = sum(math.prod(shape) for shape in layer["params"])
    found = [Option("ps", 2 * (nodes - 1) / nodes * numbers / floats_per_s)]
    if layer["fc"] and not layer["tied_to"]:
        m, n = layer["fc"]["m"], layer["fc"]["n"]
        rows = batch * max(1, layer["rows_per_sample"])
        found.append(Option("sfb", (nodes - 1) * rows * (m + n) / floats_per_s, (nodes - 1) * 2 * rows * m * n / flops_per_s))
        least = min((nodes - 1) * (rows * (m / pr + n * pr / nodes) + m * n / nodes)
                    for pr in range(1, nodes + 1) if nodes % pr == 0)
        found.append(Option("block", least / floats_per_s))
    return found


def overlapped(forward, backward, picked):
    """T_best of one choice of options, layer by layer."""
    compute = sum(forward) + sum(backward)
    best = compute + sum(option.rebuild_seconds for option in picked)
    suffix, sent = compute, 0.0
    for f, b, option in zip(forward, backward, picked):
        sent += option.link_seconds
        best = max(best, suffix + sent)
        suffix -= f + b
    return best


def overlapped_with_backward(forward, backward, picked):
    """The same with a barrier before the next forward pass."""
    latest, suffix, sent = 0.0, sum(backward), 0.0
    for b, option in zip(backward, picked):
        sent += option.link_seconds
        latest = max(latest, suffix + sent)
        suffix -= b
    return sum(forward) + latest


def search(choices, time_of):
    """The combination of options with the least time: (seconds, one option per layer)."""
    free = [i for i, found in enumerate(choices) if len(found) > 1]

    def with_moves(picked, moves):
        trial = list(picked)
        for i, option in moves:
            trial[i] = option
        return trial

    dense = [found[0] for found in choices]
    if len(free) <= _FREE_LAYERS_MAX:
        combinations = itertools.product(*(choices[i] for i in free))
        trials = (with_moves(dense, zip(free, combination)) for combination in combinations)
        return min(((time_of(trial), trial) for trial in trials), key=lambda pair: pair[0])
    least_of_all, picked_of_all = time_of(dense), dense
    for start in range(3):
        picked = [found[min(start, len(found) - 1)] for found in choices]
        least, better = time_of(picked), True
        while better:
            better = False
            moves = [[(i, o)] for i in free for o in choices[i]]
            moves += [[(i, o), (k, q)] for i, k in zip(free, free[1:]) for o in choices[i] for q in choices[k]]
            for move in moves:
                trial = with_moves(picked, move)
                seconds = time_of(trial)
                if seconds < least - 1e-9:
                    least, picked, better = seconds, trial, True
        if least < least_of_all:
            least_of_all, picked_of_all = least, picked
    return least_of_all, picked_of_all


def bounds(model, samples_per_second, batch, nodes, bits_per_second):
    """All bounds of a model description (examples/models) for `nodes` nodes."""
    layers = model["layers"]
    flops_per_s = (model["forward_flops_per_sample"] + model["backward_flops_per_sample"]) * samples_per_second
    forward = [layer["forward_flops_per_sample"] * batch / flops_per_s for layer in layers]
    backward = [layer["backward_flops_per_sample"] * batch / flops_per_s for layer in layers]
    floats_per_s = bits_per_second / 8 / 4 * units.TCP_SHARE
    choices = [options(layer, batch, nodes, floats_per_s, flops_per_s) for layer in layers]
    dense = [found[0] for found in choices]
    best, picked = search(choices, lambda trial: overlapped(forward, backward, trial))
    compute = sum(forward) + sum(backward)
    return Bounds(one_node=compute, best=best, dense=overlapped(forward, backward, dense),
                  dense_barrier=overlapped_with_backward(forward, backward, dense),
                  dense_serial=compute + sum(option.link_seconds for option in dense),
                  schemes={layer["name"]: o.scheme for layer, o in zip(layers, picked) if o.scheme != "ps"})


def main(path, samples_per_second, batch, nodes, rate):
    model = json.loads(pathlib.Path(path).read_text())
    found = bounds(model, samples_per_second, batch, nodes, units.parse_rate(rate))
    print(f"{model['name']}: {nodes} nodes, {rate}, one node {found.one_node:.4f} s")
    for name in ("best", "dense", "dense_barrier", "dense_serial"):
        seconds = getattr(found, name)
        print(f"  {name:<14} {seconds:.4f} s, speed-up {nodes * found.one_node / seconds:.2f}")
    print(f"  other than ps in best: {found.schemes}")


if __name__ == "__main__":
    if len(sys.argv) != 6:
        sys.exit(__doc__)
    main(sys.argv[1], float(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), sys.argv[5])
