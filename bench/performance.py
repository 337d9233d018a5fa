#!/usr/bin/env python3
"""Makes docs/performance.md: what the original system claimed, what the harness measured, what `poseidon plan` predicts.

    bench/performance.py                                   from the files of bench/results alone
    bench/performance.py --plan build/bin/poseidon         asks the command first, for what is not stored yet
    bench/performance.py --plan build/bin/poseidon --again asks it for everything

Answers of the command are kept in bench/results/plan-*.json, without the layers. Rows of the harness are taken from the other files
there (bench/cluster/run.py --out); what has not been measured is said to be so. Run it again after either has changed:
tests/performance_test.py fails where the page is not what the files give.
"""
import argparse
import dataclasses
import json
import pathlib
import subprocess
import sys

from cluster.poseidon import Variant

ROOT = pathlib.Path(__file__).resolve().parents[1]
RESULTS = ROOT / "bench/results"
MODELS = ROOT / "examples/models"
PAGE = ROOT / "docs/performance.md"
PICTURE = ROOT / "docs/performance-claims.png"
SCALING_PICTURE = ROOT / "docs/performance-scaling.png"

# The system that was published first: a report of 2015 and a paper of 2017.
REPORT = "[report, 2015](https://arxiv.org/abs/1512.06216)"
PAPER = "[USENIX ATC 2017](https://arxiv.org/abs/1706.03292)"


@dataclasses.dataclass(frozen=True)
class Claim:
    """One published figure, and the batch and rate of one GPU that it is compared at (bench/cluster/models.py)."""
    model: str
    title: str
    nodes: int
    bandwidth: str
    speedup: float
    source: str
    batch: int
    samples_per_second: float
    note: str = ""


# The report names no network but "commodity Ethernet".
CLAIMS = (
    Claim("alexnet", "AlexNet", 8, "10Gbit", 4.5, REPORT, 128, 1421, "network not named; 10 Gbit/s here"),
    Claim("googlenet", "GoogLeNet", 8, "10Gbit", 4.0, REPORT, 128, 257, "network not named; 10 Gbit/s here"),
    Claim("vgg19-22k", "VGG19-22K", 16, "10Gbit", 15.5, PAPER, 32, 34.6),
    Claim("vgg19-22k", "VGG19-22K", 32, "40Gbit", 29.45, PAPER, 32, 34.6),
    Claim("inception-v3", "Inception-V3", 32, "40Gbit", 31.5, PAPER, 32, 43.2),
    Claim("resnet-152", "ResNet-152", 32, "40Gbit", 31.0, PAPER, 32, 20),
)
# The picture of scaling: the same models where the links are narrow and where they are not.
SCALING_NODES = (1, 2, 4, 8, 16, 32)
SCALING_BANDWIDTHS = ("10Gbit", "40Gbit")

# What the thousand nodes are asked with.
LARGE = ("resnet-152", 1024, "40Gbit", 32, 20)


def question(model, nodes, bandwidth, batch, samples_per_second, variant=Variant()):
    """What `poseidon plan` is asked; equal questions have equal answers."""
    asked = {"model": model, "nodes": nodes, "bandwidth": bandwidth, "batch": batch, "samples_per_second": samples_per_second,
             "scheme": variant.scheme}
    if variant != Variant(scheme=variant.scheme):
        asked["flags"] = [str(flag) for flag in variant.flags[2:]]  # the scheme's come first
    return asked


def of_claim(claim):
    return question(claim.model, claim.nodes, claim.bandwidth, claim.batch, claim.samples_per_second)


class Plans:
    """Stored answers of `poseidon plan`, one file for each model."""

    def __init__(self, folder):
        self._folder = folder
        self._answers = {}
        for path in sorted(folder.glob("plan-*.json")):
            for row in json.loads(path.read_text())["rows"]:
                self._answers[self._key(row["question"])] = row

    @staticmethod
    def _key(asked):
        return json.dumps(asked, sort_keys=True)

    def get(self, asked):
        """The answer's fields, or None."""
        row = self._answers.get(self._key(asked))
        return row and row["answer"]

    def ask(self, program, asked):
        done = subprocess.run([str(program), "plan", "--model", str(MODELS / f"{asked['model']}.json"),
                               "--images-per-second", str(asked["samples_per_second"]), "--batch", str(asked["batch"]),
                               "--nodes", str(asked["nodes"]), "--bandwidth", asked["bandwidth"], "--scheme", asked["scheme"],
                               *asked.get("flags", []), "--json"],
                              stdout=subprocess.PIPE, text=True, check=True)
        answer = json.loads(done.stdout)
        schemes = {}
        for layer in answer.pop("layers"):
            schemes[layer["scheme"]] = schemes.get(layer["scheme"], 0) + 1
        answer["schemes"] = schemes
        self._answers[self._key(asked)] = {"question": asked, "answer": answer}
        self._save(asked["model"])

    def _save(self, model):
        rows = [row for row in self._answers.values() if row["question"]["model"] == model]
        rows.sort(key=lambda row: (row["question"]["batch"], row["question"]["bandwidth"], row["question"]["nodes"],
                                   row["question"]["scheme"], row["question"].get("flags", [])))
        (self._folder / f"plan-{model}.json").write_text(json.dumps({"rows": rows}, indent=1) + "\n")


def harness_rows(folder):
    """All rows with figures that may be trusted, of all files of the harness, each with its file's name."""
    rows = []
    for path in sorted(folder.glob("*.json")):
        if path.name.startswith("plan-"):
            continue
        content = json.loads(path.read_text())
        if isinstance(content, dict) and content.get("rows"):
            rows += [{**row, "file": path.name} for row in content["rows"] if row.get("status") == "measured" and "nodes" in row]
    return rows


def measured(rows, claim):
    """The harness's row for a claim, or None; of several the last."""
    fitting = [row for row in rows if row["system"] == "poseidon" and row["model"] == claim.model and row["nodes"] == claim.nodes
               and row["equivalent"] == claim.bandwidth and row["batch"] == claim.batch]
    return fitting[-1] if fitting else None


def of_row(row):
    """The plan's question for a row of the harness, or None where it cannot be asked: another program, or the harness's own model for
    measuring lines, which trains nothing. A script under `poseidon run` is the harness's own program too."""
    if row["system"].split(":")[0] != "poseidon" or row["system"] == "poseidon:torch" or not (MODELS / f"{row['model']}.json").is_file():
        return None
    return question(row["model"], row["nodes"], row["equivalent"], row["batch"], row["samples_per_second"], Variant.parse(row["system"]))


def questions(rows):
    """Everything that the page needs an answer to."""
    asked = [of_claim(claim) for claim in CLAIMS]
    for claim in {claim.model: claim for claim in CLAIMS}.values():
        asked += [question(claim.model, nodes, bandwidth, claim.batch, claim.samples_per_second)
                  for bandwidth in SCALING_BANDWIDTHS for nodes in SCALING_NODES]
    asked += [found for found in map(of_row, rows) if found]
    asked.append(question(*LARGE))  # takes minutes: last
    return list({json.dumps(one, sort_keys=True): one for one in asked}.values())


def gbit(bandwidth):
    return bandwidth.replace("Gbit", " Gbit/s").replace("Mbit", " Mbit/s")


def table(heading, rows):
    lines = ["| " + " | ".join(heading) + " |", "|" + " --- |" * len(heading)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def claim_table(plans, rows):
    cells = []
    for claim in CLAIMS:
        answer = plans.get(of_claim(claim))
        row = measured(rows, claim)
        where = f"{claim.title}, {claim.nodes} nodes, {gbit(claim.bandwidth)}"
        cells.append([where, f"{claim.speedup:g}× ({claim.source})" + (f"; {claim.note}" if claim.note else ""),
                      f"{row['speed_up']:.2f}×" if row else "not measured yet",
                      f"{answer['speedup']:.2f}×" if answer else "not asked yet",
                      f"{100 * answer['fraction_of_bound']:.1f} %" if answer else "",
                      answer["limit"] if answer else ""])
    return table(["model", "claim", "harness", "plan", "of the bound", "limited by"], cells)


def agreement_table(plans, rows):
    cells = []
    for row in rows:
        asked = of_row(row)
        if not asked:
            continue
        seconds = row["median_seconds"] / row["dilation"]
        answer = plans.get(asked)
        cells.append([row["model"], str(row["nodes"]), gbit(row["equivalent"]), row["system"], f"{1e3 * seconds:.2f} ms",
                      f"{1e3 * answer['iteration_seconds']:.2f} ms" if answer else "not asked yet",
                      f"{100 * (answer['iteration_seconds'] / seconds - 1):+.1f} %" if answer else "", f"`{row['file']}`"])
    if not cells:
        return "No row has been measured yet."
    return table(["model", "nodes", "links", "system", "harness", "plan", "plan against harness", "file"], cells)


def same_cluster(row):
    """What a row was measured on: rows of several systems with the same are compared."""
    return tuple(row[key] for key in ("model", "nodes", "equivalent", "dilation", "batch", "samples_per_second", "congestion_control"))


def ddp_table(rows, system):
    ours = {same_cluster(row): row for row in rows if row["system"] == system}
    cells = []
    for row in rows:
        own = ours.get(same_cluster(row))
        if row["system"] != "ddp" or own is None:
            continue
        cells.append([row["model"], str(row["batch"]), str(row["nodes"]), gbit(row["equivalent"]),
                      f"{1e3 * row['median_seconds'] / row['dilation']:.1f} ms ({row['bucket_mb']} MB)",
                      f"{1e3 * own['median_seconds'] / own['dilation']:.1f} ms", f"{row['median_seconds'] / own['median_seconds']:.2f}×",
                      f"{100 * own['bound_share']:.1f} %"])
    if not cells:
        return "No row has been measured yet."
    return table(["model", "batch", "nodes", "links", "DDP (its best bucket)", "Poseidon", "faster by", "of the bound"], cells)


def large_text(plans):
    answer = plans.get(question(*LARGE))
    if not answer:
        return "Not asked yet."
    return (f"ResNet-152 on 1,024 nodes with {gbit(LARGE[2])}, batches of {LARGE[3]}: {answer['iteration_seconds']:.4f} s an iteration, a "
            f"speed-up of {answer['speedup']:.1f}, {100 * answer['fraction_of_bound']:.1f} % of what no schedule can beat. The links are "
            f"used to {100 * max(answer['link_sent'], answer['link_received']):.1f} %; limited by: {answer['limit']}.")


def page(plans, rows):
    return f"""# Performance

Made by [bench/performance.py](../bench/performance.py) from the files in `bench/results`; do not edit it by hand.

## What the original system claimed

Speed-ups over one node. *Harness*: `poseidon` between network namespaces, with shaped links and dilated time
([benchmarks.md](benchmarks.md)). *Plan*: `poseidon plan`, the same engine in virtual time ([planning.md](planning.md)). Both use the
batch and the rate of one GPU that were published with the claim.

{claim_table(plans, rows)}

![Speed-ups as shares of the ideal ones](performance-claims.png)

The claims were made with the GPUs of their day, whose rates are the plan's input; what can be compared is how much of the ideal
speed-up is left.

## From one node to 32

![Speed-up over nodes, planned](performance-scaling.png)

## A thousand nodes

{large_text(plans)}

## Beside PyTorch's DDP

Seconds of one iteration in the harness, divided by its dilation, of the same layer shapes and waits. DDP is over gloo, with the best of
buckets of 1, 25 and 100 MB. The last column: how much of what no schedule can beat Poseidon reaches.

{ddp_table(rows, "poseidon")}

### An ordinary PyTorch script

Likewise, but what is beside DDP is a PyTorch script under `poseidon run` (`poseidon:torch`): real autograd and the plug-in, with layers that wait.

{ddp_table(rows, "poseidon:torch")}

## Does the plan agree with the harness?

Seconds of one iteration; those of the harness divided by its dilation.

{agreement_table(plans, rows)}
"""


def draw_claims(plans, rows, path):
    """Bars: how much of the ideal speed-up each claim, measurement and plan has."""
    import matplotlib
    matplotlib.use("Agg")  # there is no screen
    from matplotlib import pyplot
    figure, axis = pyplot.subplots(figsize=(9, 3.8))
    kinds = (("claim", "0.65", lambda c: c.speedup), ("harness", "tab:orange", lambda c: (measured(rows, c) or {}).get("speed_up")),
             ("plan", "tab:blue", lambda c: (plans.get(of_claim(c)) or {}).get("speedup")))
    for k, (name, colour, value) in enumerate(kinds):
        found = [(place, value(claim) / claim.nodes) for place, claim in enumerate(CLAIMS) if value(claim)]
        if found:
            axis.bar([place + 0.27 * (k - 1) for place, _ in found], [100 * share for _, share in found], 0.25, color=colour, label=name)
    axis.set_xticks(range(len(CLAIMS)), [f"{c.title}\n{c.nodes} nodes\n{gbit(c.bandwidth)}" for c in CLAIMS], fontsize=8)
    axis.set_ylabel("% of the ideal speed-up")
    axis.set_ylim(0, 105)
    axis.grid(axis="y", alpha=0.3)
    axis.set_axisbelow(True)
    axis.legend(frameon=False, ncol=3, loc="upper center", bbox_to_anchor=(0.5, 1.13))
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    pyplot.close(figure)


def draw_scaling(plans, path):
    """Lines: planned speed-ups over nodes, a panel for each bandwidth."""
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot
    figure, axes = pyplot.subplots(1, len(SCALING_BANDWIDTHS), figsize=(9, 3.8), sharey=True)
    models = {claim.model: claim for claim in CLAIMS}
    for axis, bandwidth in zip(axes, SCALING_BANDWIDTHS):
        axis.plot(SCALING_NODES, SCALING_NODES, color="0.6", linestyle="dashed", label="ideal")
        for claim in models.values():
            answers = [(nodes, plans.get(question(claim.model, nodes, bandwidth, claim.batch, claim.samples_per_second)))
                       for nodes in SCALING_NODES]
            found = [(nodes, answer["speedup"]) for nodes, answer in answers if answer]
            if found:
                axis.plot(*zip(*found), marker="o", markersize=3, label=claim.title)
        axis.set_title(gbit(bandwidth), fontsize=10)
        axis.set_xlabel("nodes")
        axis.set_xticks(SCALING_NODES)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("speed-up")
    axes[0].legend(frameon=False, fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    pyplot.close(figure)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plan", type=pathlib.Path, help="the program `poseidon`, to ask for what is not stored")
    parser.add_argument("--again", action="store_true", help="with --plan: ask for everything anew")
    arguments = parser.parse_args()
    rows = harness_rows(RESULTS)
    plans = Plans(RESULTS)
    for asked in questions(rows) if arguments.plan else []:
        if arguments.again or plans.get(asked) is None:
            print(f"plan: {asked['model']}, {asked['nodes']} nodes, {asked['bandwidth']}, {asked['scheme']}", flush=True)
            plans.ask(arguments.plan, asked)
    PAGE.write_text(page(plans, rows))
    draw_claims(plans, rows, PICTURE)
    draw_scaling(plans, SCALING_PICTURE)
    print(agreement_table(plans, rows))


if __name__ == "__main__":
    sys.exit(main())
