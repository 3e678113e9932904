"""Kill the service at a named point: loaded by every Python process of it, patched in by the tests, never shipped.

INGESTD_TEST_KILL is `module:attribute:n:who:file`: the n-th call kills `service` or `worker`, once; `file` remembers that.
"""

import os
import signal
import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import PathFinder
from pathlib import Path


def arm(module, attribute, count, who, done):
    original = getattr(module, attribute)
    calls = 0

    def patched(*args, **kwargs):
        nonlocal calls
        calls += 1
        if calls == count and not done.exists():
            done.touch()
            if who == "service" and "INGESTD_TEST_SERVICE" in os.environ:
                os.kill(int(os.environ["INGESTD_TEST_SERVICE"]), signal.SIGKILL)
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args, **kwargs)

    setattr(module, attribute, patched)


class Armed(Loader):
    def __init__(self, loader, how):
        self.loader, self.how = loader, how

    def create_module(self, spec):
        return self.loader.create_module(spec)

    def exec_module(self, module):
        self.loader.exec_module(module)
        arm(module, *self.how)


class Finder(MetaPathFinder):
    def __init__(self, name, how):
        self.name, self.how = name, how

    def find_spec(self, name, path, target=None):
        if name != self.name:
            return None
        spec = PathFinder.find_spec(name, path, target)
        spec.loader = Armed(spec.loader, self.how)
        return spec


if "INGESTD_TEST_KILL" in os.environ:
    name, attribute, count, who, done = os.environ["INGESTD_TEST_KILL"].split(":", 4)
    os.environ.setdefault("INGESTD_TEST_SERVICE", str(os.getpid()))
    sys.meta_path.insert(0, Finder(name, (attribute, int(count), who, Path(done))))
