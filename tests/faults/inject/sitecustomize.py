"""Stop, cut, break or kill the service at named calls: loaded by each of its Python processes, never shipped.

INGESTD_TEST_POINTS names the functions, `module:function` or `module:Class.method`, split by commas. Which of them does
what, at which call and in which process, stands in the file INGESTD_TEST_FAULT, so that it can change while the service
runs; the calls of all processes are counted together. No file, no fault.
"""

import asyncio
import errno
import fcntl
import functools
import inspect
import json
import multiprocessing
import os
import resource
import signal
import sys
import threading
import time
from contextlib import suppress
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import PathFinder
from itertools import chain
from pathlib import Path

ROOM = 100_000


def due(point, args):
    """What is to happen at this call: None, or the fault."""
    with suppress(FileNotFoundError), FAULT.open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        fault = json.load(file)
        if point not in fault["points"] or fault["only"] not in (None, *args, *chain(*filter(is_list, args))):
            return None
        if fault["where"] not in (None, "service" if multiprocessing.parent_process() is None else "worker"):
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


def hold(function, args, kwargs):
    """Stay before the call, saying who does, until the fault is taken away."""
    held = FAULT.with_suffix(f".{os.getpid()}")
    held.write_text(str(os.getpid()))
    held.replace(FAULT.with_suffix(".held"))
    while FAULT.exists():
        time.sleep(0.01)
    return function(*args, **kwargs)


def die(*_):
    """End this process as the kernel does when memory runs out."""
    os.kill(os.getpid(), signal.SIGKILL)


def cut(function, args, kwargs):
    """Lose the database connection of the call before it."""
    driver(*args).pgconn.finish()
    return function(*args, **kwargs)


def cut_after(function, args, kwargs):
    """Lose the database connection of the call after it, and with it the answer."""
    function(*args, **kwargs)
    driver(*args).pgconn.finish()
    raise connection_lost()


def fail(*_):
    """Raise what nobody expects."""
    raise RuntimeError("broken on purpose")


def io_error(*_):
    """Fail as a disk does."""
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def disk_full(*_):
    """Fail as a disk does that is full."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def no_room(function, args, kwargs):
    """Have no room for files of any size, until the fault is taken away."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (ROOM, resource.RLIM_INFINITY))
    threading.Thread(target=make_room, daemon=True).start()
    return function(*args, **kwargs)


def make_room():
    while FAULT.exists():
        time.sleep(0.01)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def driver(*args):
    """The driver's connection of a call: that of its cursor, or of SQLAlchemy's connection, or it is that itself."""
    carrier = next(each for each in args if hasattr(each, "connection") or hasattr(each, "pgconn"))
    carrier = getattr(carrier, "connection", carrier)
    return getattr(carrier, "driver_connection", carrier)


def connection_lost():
    return sys.modules["psycopg"].OperationalError("the connection is lost")


async def in_a_coroutine(act, function, args, kwargs):
    """Let happen to a coroutine what happens to a function."""
    if act not in (cut, cut_after):
        return await act(function, args, kwargs)
    session = next(each for each in args if hasattr(each, "sync_session"))
    raw = await (await session.connection()).get_raw_connection()
    if act is cut_after:
        await function(*args, **kwargs)
    raw.driver_connection.pgconn.finish()
    if act is cut_after:
        raise connection_lost()
    return await function(*args, **kwargs)


def armed(point, function):
    @functools.wraps(function)
    def patched(*args, **kwargs):
        fault = due(point, args)
        if fault is None:
            return function(*args, **kwargs)
        act = globals()[fault["act"]]
        if inspect.iscoroutinefunction(function):
            return in_a_coroutine(act, function, args, kwargs)
        return act(function, args, kwargs)

    return patched


def tell_tasks(*_):
    """Write down how many tasks the event loop of this process has."""
    told = FAULT.with_suffix(f".{os.getpid()}")
    told.write_text(str(len(asyncio.all_tasks())))
    told.replace(FAULT.with_suffix(".tasks"))


def arm(module):
    """Patch the points of a module."""
    for name in POINTS[module.__name__]:
        *outer, inner = name.split(".")
        holder = functools.reduce(getattr, outer, module)
        setattr(holder, inner, armed(f"{module.__name__}:{name}", getattr(holder, inner)))


class Armed(Loader):
    def __init__(self, loader):
        self.loader = loader

    def create_module(self, spec):
        return self.loader.create_module(spec)

    def exec_module(self, module):
        self.loader.exec_module(module)
        arm(module)


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
    signal.signal(signal.SIGUSR1, tell_tasks)
    for name in POINTS.keys() & {"os"}:  # there already
        arm(sys.modules[name])
