"""Helpers for processes, random numbers, modules and files, which they leave unchanged after use.

In: modules, loaders, paths, process groups. Out: the same objects, restored; and values that all processes agree on.
This room knows nothing of CKA. It imports nothing from the other rooms.
"""
