"""What it takes to leave processes, random numbers, modules and disks as they were.

In: modules, loaders, paths, process groups. Out: the same, restored; and values that all processes agree on.
This room knows no CKA. It imports nothing from the other rooms.
"""
