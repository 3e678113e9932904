"""Stop, cut or kill the service at named calls: loaded by each of its Python processes, never shipped.

INGESTD_TEST_POINTS names the functions, `module:function`, split by commas. Which of them does what, and at which call,
stands in the file INGESTD_TEST_FAULT, so that it can change while the service runs; the calls of all processes are
counted together. No file, no fault.
"""

import fcntl
import functools
import json
import os
import signal
import sys
import time
from contextlib import suppress
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import PathFinder
from itertools import chain
from pathlib import Path


def due(point, args):
    """What is to happen at this call: None, or the fault."""
    with suppress(FileNotFoundError), FAULT.open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        fault = json.load(file)
        if point not in fault["points"] or fault["only"] not in (None, *args, *chain(*filter(is_list, args))):
            return None
        fault["calls"] += 1
        file.seek(0)
        json.dump(fault, file)
        file.truncate()
        if fault["calls"] == fault["call"] or (fault["always"] and fault["calls"] > fault["call"]):
            return fault
    return None


def is_list(argument):
    return isinstance(argument, list)


def hold(_):
    """Stay in the call, saying who does, until the fault is taken away."""
    held = FAULT.with_suffix(f".{os.getpid()}")
    held.write_text(str(os.getpid()))
    held.replace(FAULT.with_suffix(".held"))
    while FAULT.exists():
        time.sleep(0.01)


def die(_):
    """End this process as the kernel does when memory runs out."""
    os.kill(os.getpid(), signal.SIGKILL)


def cut(args):
    """Close the database connection that the call was given."""
    args[0].connection.driver_connection.close()


def armed(point, function):
    @functools.wraps(function)
    def patched(*args, **kwargs):
        fault = due(point, args)
        if fault is not None:
            globals()[fault["act"]](args)
        return function(*args, **kwargs)

    return patched


class Armed(Loader):
    def __init__(self, loader):
        self.loader = loader

    def create_module(self, spec):
        return self.loader.create_module(spec)

    def exec_module(self, module):
        self.loader.exec_module(module)
        for name in POINTS[module.__name__]:
            setattr(module, name, armed(f"{module.__name__}:{name}", getattr(module, name)))


class Finder(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name not in POINTS:
            return None
        spec = PathFinder.find_spec(name, path, target)
        spec.loader = Armed(spec.loader)
        return spec


POINTS = {}
if "INGESTD_TEST_POINTS" in os.environ:
    FAULT = Path(os.environ["INGESTD_TEST_FAULT"])
    for each in os.environ["INGESTD_TEST_POINTS"].split(","):
        module, _, function = each.partition(":")
        POINTS.setdefault(module, []).append(function)
    sys.meta_path.insert(0, Finder())
