"""Rows as a text table."""

_COLUMNS = (
    ("model", 13, lambda r: r["model"]),
    ("nodes", 5, lambda r: str(r["nodes"])),
    ("system", 23, lambda r: r["system"]),
    ("median s", 9, lambda r: f"{r['median_seconds']:.3f}"),
    ("min", 8, lambda r: f"{r['least_seconds']:.3f}"),
    ("max", 8, lambda r: f"{r['most_seconds']:.3f}"),
    ("bound s", 8, lambda r: f"{r['bound_seconds']:.3f}"),
    ("of bound", 8, lambda r: f"{r['bound_share']:.1%}"),
    ("speed-up", 8, lambda r: f"{r['speed_up']:.2f}"),
    ("link use", 8, lambda r: f"{r['link_use']:.0%}"),
    ("CPU s/GB", 8, lambda r: f"{r['cpu_seconds_per_gb']:.2f}" if r["cpu_seconds_per_gb"] is not None else "-"),
    ("CPU", 5, lambda r: f"{r['cpu_share']:.0%}"),
    ("peak", 5, lambda r: f"{r['cpu_share_peak']:.0%}"),
)
_NAMES = 3  # the columns that a row without figures has too, aligned to the left


def header():
    return " ".join(name.ljust(width) if i < _NAMES else name.rjust(width) for i, (name, width, _) in enumerate(_COLUMNS))


def line(row):
    if "median_seconds" not in row:
        names = " ".join(text(row).ljust(width) for _, width, text in _COLUMNS[:_NAMES])
        return f"{names} {row['status']}: {row['note']}"
    cells = [text(row).ljust(width) if i < _NAMES else text(row).rjust(width) for i, (_, width, text) in enumerate(_COLUMNS)]
    note = "" if row["status"] == "measured" else f"  {row['status'].upper()}: {row['note']}"
    return " ".join(cells) + note
