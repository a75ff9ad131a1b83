"""How figures are taken, compared and printed."""

import statistics


def running_seconds(pid):
    """The CPU time of a process of one thread."""
    with open(f"/proc/{pid}/schedstat") as stat:
        return int(stat.read().split()[0]) / 1e9


def short(value):
    return f"{value:,.0f}" if isinstance(value, float) else str(value)


def median(figures, key):
    return statistics.median(one[key] for one in figures)


def ratio_line(label, ours, theirs):
    ratios = [a / b for a, b in zip(ours, theirs)]
    return (f"{label}: {statistics.median(ours) / statistics.median(theirs):.2f} "
            f"(of single runs {min(ratios):.2f} to {max(ratios):.2f})")


def table(title, unit, figures, base, notes=()):
    """Ratios to `base`, with medians and spreads beside them."""
    lines = ["", f"{title} ({unit})",
             f"  {'':18}{'ratio':>8}{'median':>12}{'least':>12}{'most':>12}"]
    reference = statistics.median(figures[base])
    for name, values in figures.items():
        median = statistics.median(values)
        lines.append(f"  {name:18}{median / reference:>8.2f}{median:>12,.0f}{min(values):>12,.0f}"
                     f"{max(values):>12,.0f}")
    return lines + [f"  {note}" for note in notes]
