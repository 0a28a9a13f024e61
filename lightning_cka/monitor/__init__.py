"""The Lightning callback: Trainer events in, calls of all other rooms, loggers and files out.

In: events of a Trainer. Out: results in memory, logged values and figures, files of a run.
This room imports from all other rooms. Only the command line imports from it.
"""
