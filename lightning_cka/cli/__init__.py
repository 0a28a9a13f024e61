"""The command line `lightning-cka`: compares networks and draws pictures from files of earlier runs."""

from lightning_cka.cli.entry_point import main as main
