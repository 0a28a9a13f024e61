"""The text of flags: it names layers and samples, and says what to do."""

from dataclasses import replace

import torch
from lightning_cka import CKAResult
from lightning_cka.compare.flag_messages import flag_label, flag_messages, flag_summary
from lightning_cka.compare.flags import Flag

RESULT = CKAResult(torch.ones(1, 1), ("fc",), ("fc",))


def test_a_sample_that_outweighs_all_others():
    flag = Flag("fc", "leave_one_out", float("nan"), 0.05, (17,))
    assert flag_label(flag, "dataset index") == "fc (nan at dataset index 17, which outweighs all others)"


def test_messages_name_layer_and_sample_and_say_what_to_do():
    flags = [
        Flag("conv1", "trace_ratio", 83.21, 20.0, (17, 5)),
        Flag("fc", "dominant_direction", 0.1234, 0.45, (1, 2, 3, 7, 8, 9)),
        Flag("fc", "separated_group", 0.5, 0.1, (4, 6)),
        Flag("fc", "influence", 7.25, 2.0, (17,)),
        Flag("conv1", "leave_one_out", 0.231, 0.05, (17,)),
        *(Flag(f"layer{i}", "standard_error", 0.1, 0.05) for i in range(20)),
    ]
    messages = flag_messages(flags, "dataset index", RESULT, " with 'initial'")
    assert len(messages) == 6
    direction, group, ratio, change, influence, error = messages
    assert "CKA with 'initial': layers whose CKA depends on one direction" in direction
    assert "fc (0.123 without it; ends: dataset index 1, 2, 3 and 7, 8, 9)" in direction
    assert "CKA falls by more than 0.45" in direction
    assert "layers that have a group of samples apart: fc (0.5 within the groups; group: dataset index 4, 6)" in group
    assert "more than 2 standard errors without one sample: fc (7.25 at dataset index 17)" in influence
    assert "more than 20 times" in ratio
    assert "conv1 (83.2 at dataset index 17, 5)" in ratio
    assert "Inspect them, then compare without them (exclude=) or with kernel='rbf'" in ratio
    assert "by more than 0.05 without one sample: conv1 (0.231 at dataset index 17)" in change
    assert "layer7 (0.1), and 12 more. " in error
    assert "Use more probe samples" in error
    rbf = flag_messages(flags, "sample", replace(RESULT, kernel="rbf(0.2)"))
    assert rbf[2].startswith("CKA, kernel rbf(0.2): layers that single samples dominate")
    assert not any("kernel='rbf'" in message for message in rbf)
    assert flag_summary(flags, "sample")[2] == (
        "single samples with > 20 times the mean squared distance: conv1 (83.2 at sample 17, 5)"
    )
