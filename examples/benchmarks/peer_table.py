"""The table that compares lightning-cka with other packages."""

from __future__ import annotations

import statistics

from benchmarks.markdown import mib, seconds, with_range


def table_rows(found):
    """Return the rows of the table for one network."""
    ours = found[0]
    rows = [measured_row(each, ours) for each in found if "failed" not in each]
    empty = dict.fromkeys(rows[0], "–")
    return rows + [empty | name_cells(each) | {"error": each["failed"][:60]} for each in found if "failed" in each]


def name_cells(each):
    """Return the cells that name the network and the package."""
    return {"network (layers)": f"{each['network']} ({each['layers']})", "package": each["package"]}


def measured_row(each, ours):
    """Return the row of a package that did not fail."""
    row = name_cells(each)
    for number in each["seconds"]:
        row |= time_cells(each, ours, number)
    error, error_of_all = each["error"], each["error_of_all_batches"]
    return row | {
        "extra memory, MiB": mib(each["extra_bytes"]),
        "held per reference, MiB": mib(each["held_bytes_per_reference"]),
        "error": f"{error['all']:.0e}",
        "error after ReLU": "–" if error["relu"] is None else f"{error['relu']:.0e}",
        "error to all batches": "–" if error_of_all is None else f"{error_of_all['all']:.0e}",
    }


def time_cells(each, ours, number):
    """Return the seconds with this number of references, and their ratio to ours."""
    times, our_times = each["seconds"][number], ours["seconds"][number]
    about = "about " if each["is_estimate"][number] else ""
    if each is ours:
        ratio = "1"
    elif about:
        ratio = f"about {times[0] / statistics.median(our_times):.0f}"
    else:
        ratio = with_range([a / b for a, b in zip(times, our_times, strict=True)], "{:.1f}")
    return {f"R = {number}": about + seconds(times), f"times ours, R = {number}": ratio}
