"""Wake-ups: who looks at a queue hears of its work, and of no other's."""

import threading
from contextlib import closing

from ingestd.store import engine as store
from ingestd.store import wakeups


def test_a_commit_tells_which_queue_has_work(ground):
    made, stopped = store.engine(ground.database_url, pool_size=1), threading.Event()
    with closing(wakeups.listen(ground.database_url, stopped)) as told:
        assert next(told) is None  # something may have been missed before
        with made.begin() as connection:
            wakeups.tell(connection, "parts")
            wakeups.tell(connection, "fetches")
        assert [next(told), next(told)] == ["parts", "fetches"]
    made.dispose()
