"""Run scripts and functions in processes that are forked from one that has imported the packages, which takes seconds.

A script sees what it would see if Python had started it: its own ``__main__``, arguments, environment, folder and
streams. Lightning starts further processes of a script in the same way.
"""

import atexit
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from importlib.util import find_spec
from multiprocessing import process as multiprocessing_process
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType, SimpleNamespace

from torch.multiprocessing import start_processes

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["preloaded"])
# Whichever test starts the server, it finds that module.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH")]))
_SPARES = 2
"""Number of further processes that Lightning or a script can start."""

_left = []
"""In the process of a script: those that are left."""


def run(command, folder, environment, timeout):
    """Run a script, and return what `subprocess.run` would return for it.

    Args:
        command: Path of the script, and its arguments.
        folder: Folder to run it in.
        environment: Environment variables that it sees.
        timeout: Seconds after which it is killed, with a `subprocess.TimeoutExpired`.
    """
    command = list(map(str, command))
    with TemporaryDirectory() as streams:
        files = [str(Path(streams) / name) for name in ("out", "err")]
        process = _CONTEXT.Process(target=_main, args=(command, str(folder), dict(environment), files))
        process.start()
        process.join(timeout)
        is_late = process.exitcode is None
        if is_late:
            process.kill()
            process.join()
        out, err = (Path(file).read_text() if Path(file).exists() else "" for file in files)
    if is_late:
        raise subprocess.TimeoutExpired(command, timeout, out, err)
    return subprocess.CompletedProcess(command, process.exitcode, out, err)


def replace_spawning(patch):
    """Fork the processes that this one would spawn from the one that has imported the packages.

    They get the same pickled objects, and start with nothing else of this process.
    """
    server = multiprocessing.context.ForkServerProcess
    patch.setattr(multiprocessing.context.SpawnProcess, "_Popen", staticmethod(server._Popen))


def run_python(command, env, **_options):
    """Run a command of Python in a process that is left, in place of `subprocess.run`, with the same streams."""
    process = _left.pop().start(command, env)
    while process.poll() is None:
        time.sleep(0.01)
    return subprocess.CompletedProcess(command, process.returncode, "", "the error is above")


def run_two_processes(function, folder):
    """Run a function of the rank and a folder in two processes, and raise the first error of them."""
    start_processes(function, (folder,), nprocs=2, start_method="forkserver")


def _main(command, folder, environment, files):
    """Run a script in this process, which ends with it."""
    for number, file in enumerate(files, 1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    # As in a process that Python has started.
    multiprocessing_process._current_process = sys.modules["preloaded"].MAIN_PROCESS
    multiprocessing_process._parent_process = None
    spares = [_Spare() for _ in range(_SPARES)]
    _run_script(command, folder, environment, spares)


class _Spare:
    """A forked process that waits for a script to run. It has what Lightning needs of a `subprocess.Popen`."""

    def __init__(self):
        reader, self._writer = os.pipe()
        self.returncode = None
        self.pid = os.fork()
        if self.pid:
            os.close(reader)
            return
        os.close(self._writer)
        with os.fdopen(reader) as file:
            text = file.read()
        if not text:
            os._exit(0)  # It was not needed.
        _run_script(*json.loads(text), [_Spare() for _ in range(_SPARES)])

    def start(self, command, env, cwd=None):
        with os.fdopen(self._writer, "w") as file:
            json.dump((command[1:], cwd or str(Path.cwd()), dict(env)), file)
        return self

    def poll(self):
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self):
        self.send_signal(signal.SIGTERM)

    def kill(self):
        self.send_signal(signal.SIGKILL)


def _run_script(command, folder, environment, spares):
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.path[:0] = environment.get("PYTHONPATH", "").split(os.pathsep)
    main = sys.modules["__main__"] = ModuleType("__main__")
    if command[0] == "-m":
        main.__spec__ = find_spec(command[1])
        path, sys.argv = Path(main.__spec__.origin), command[1:]
    else:
        path, sys.argv = Path(command[0]).resolve(), command
        sys.path.insert(0, str(path.parent))
    main.__file__ = str(path)
    launcher = sys.modules["lightning.pytorch.strategies.launchers.subprocess_script"]
    _left[:] = spares
    launcher.subprocess = SimpleNamespace(Popen=lambda *args, **kwargs: _left.pop().start(*args, **kwargs))
    code = 1
    try:
        exec(compile(path.read_text(), str(path), "exec"), main.__dict__)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001  # As Python itself does at the end of a script.
        traceback.print_exc()
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
