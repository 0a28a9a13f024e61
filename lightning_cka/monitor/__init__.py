"""The Lightning callback: it gets Trainer events, calls the other rooms, and serves loggers and files.

Input: events of a Trainer. Output: results in memory, logged values and figures, files of a run.

Where to look: `callback` for the arguments; `session` for the order of events; `logged_scalars`, `logged_figures` and
`logged_warnings` for what is logged; `loggers` for how TensorBoard and others get it; `bank_store`, `run_state` and
`start_or_resume` for resuming; `trainer_checks`, `monitored_keys` and `other_monitors` for errors before training.

This room imports from all other rooms. Only the command line imports from it.
"""
