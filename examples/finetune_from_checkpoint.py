"""Pretrain on the digits 0 to 4, fine-tune on 5 to 9, and compare each epoch with the pretrained checkpoint.

Fine-tuning hardly changes the first layers, and changes the last ones most. Takes about half a minute on 2 cores.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import lightning as L
from digits import LAYERS, DigitsCNN, digits
from lightning_cka import CKAMonitor
from torch.utils.data import DataLoader


def fit(model, classes, epochs, output, callbacks=()):
    """Train on these classes, and return the Trainer."""
    train, validation = digits(classes)
    trainer = L.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        callbacks=list(callbacks),
        logger=False,
        default_root_dir=output,
        enable_checkpointing=False,
        enable_model_summary=False,
    )
    trainer.fit(model, DataLoader(train, batch_size=64, shuffle=True), DataLoader(validation, batch_size=64))
    return trainer


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=15, help="epochs of pretraining, and of fine-tuning")
    parser.add_argument("--output", type=Path, default=Path("runs/finetune"), help="folder for checkpoint and figures")
    args = parser.parse_args()

    L.seed_everything(0, workers=True)
    model = DigitsCNN()
    checkpoint = args.output / "pretrained.ckpt"
    fit(model, range(5), args.epochs, args.output).save_checkpoint(checkpoint)

    # The reference is the path of the checkpoint. Its name in results, logs and figures is the file's: "pretrained".
    monitor = CKAMonitor(checkpoint, LAYERS, dirpath=args.output / "figures")
    trainer = fit(model, range(5, 10), args.epochs, args.output, [monitor])

    print("\nCKA of each layer with the pretrained checkpoint on digits 5 to 9, one column per epoch (1: unchanged):")
    results = monitor.results["pretrained"]
    for name in results[-1].same_named():
        print(f"  {name:6}", " ".join(f"{result.same_named()[name]:.2f}" for result in results))
    print(f"\nValidation accuracy on the new classes: {trainer.callback_metrics['validation/accuracy']:.3f}")
    print(f"Figures: {args.output / 'figures' / 'pretrained'}")


if __name__ == "__main__":
    main()
