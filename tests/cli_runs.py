"""Runs on disk, as a monitor leaves them, and the command line that fails."""

import pytest
from gram_banks import make_bank
from lightning_cka import compare_banks
from lightning_cka.cli import main

SIZES = (16, 16, 16, 16, 9)


def write_run(folder, variant=1, epochs=(0, 1), layers=("a", "b.c")):
    """Write the banks of a run, and its results with the reference "initial"."""
    banks = {}
    for epoch in (None, *epochs):
        step = 0 if epoch is None else 10 * epoch + 9
        bank = make_bank(variant + len(banks), sizes=SIZES, epoch=epoch, step=step, layers=layers)
        name = "initial" if epoch is None else f"epoch={epoch:03d}-step={step:06d}"
        bank.save(folder / "banks" / f"{name}.safetensors")
        banks[epoch] = bank
        if epoch is not None:
            compare_banks(bank, banks[None]).save(folder / "initial" / f"{name}.json")
    return banks


def fails(capsys, *arguments, lines=1):
    """Run the command line, which must end with status 2 and one line or more, and return the text."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        main(list(map(str, arguments)))
    assert caught.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("lightning-cka")
    assert err.count("\n") == 1 if lines == 1 else err.count("\n") > 1
    return err
