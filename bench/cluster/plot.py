"""Speed-ups of all rows as a picture: one panel per model, one group of bars per number of nodes."""


def draw(rows, path):
    """Writes a PNG. Rows without figures are left out; bars of invalid and disturbed rows are hatched."""
    import matplotlib
    matplotlib.use("Agg")  # there is no screen
    from matplotlib import pyplot
    rows = [row for row in rows if "median_seconds" in row]
    models = list(dict.fromkeys(row["model"] for row in rows))
    systems = list(dict.fromkeys(row["system"] for row in rows))
    if not rows:
        return False
    colours = pyplot.get_cmap("tab10")
    figure, axes = pyplot.subplots(1, len(models), figsize=(max(5.0, 4.2 * len(models)), 4.2), squeeze=False)
    for axis, model in zip(axes[0], models):
        here = [row for row in rows if row["model"] == model]
        groups = sorted({(row["nodes"], row["equivalent"], row["dilation"]) for row in here})
        width = 0.8 / len(systems)
        for place, group in enumerate(groups):
            members = [row for row in here if (row["nodes"], row["equivalent"], row["dilation"]) == group]
            for row in members:
                order = systems.index(row["system"])
                one = row["nodes"] * row["one_node_seconds"]
                x = place - 0.4 + (order + 0.5) * width
                # The whisker spans the slowest to the fastest iteration.
                low, high = row["speed_up"] - one / row["most_seconds"], one / row["least_seconds"] - row["speed_up"]
                hatch = "//" if row["status"] != "measured" else None
                axis.bar(x, row["speed_up"], 0.92 * width, color=colours(order), hatch=hatch,
                         yerr=[[low], [high]], capsize=2, ecolor="0.25")
            best = members[0]["nodes"] * members[0]["one_node_seconds"] / members[0]["bound_seconds"]
            axis.hlines(best, place - 0.42, place + 0.42, colors="black", linestyles="dashed", linewidth=1)
        axis.set_xticks(range(len(groups)), [f"{n} nodes\n{rate}, D={dilation:g}" for n, rate, dilation in groups])
        axis.set_ylim(bottom=0)
        axis.set_title(model)
        axis.grid(axis="y", alpha=0.3)
        axis.set_axisbelow(True)
    axes[0][0].set_ylabel("speed-up against one node")
    handles = [pyplot.Rectangle((0, 0), 1, 1, color=colours(i)) for i in range(len(systems))]
    handles.append(pyplot.Line2D([], [], color="black", linestyle="dashed", linewidth=1))
    figure.legend(handles, [*systems, "bound"], loc="lower center", ncol=min(6, len(systems) + 1), frameon=False)
    figure.tight_layout(rect=(0, 0.09, 1, 1))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)
    return True
