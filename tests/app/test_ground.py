"""Starting the service: what a data folder needs, and what it is given."""

import shutil
import stat

import pytest

from ingestd.app.ground import base
from ingestd.domain.errors import Unavailable
from ingestd.settings import Settings
from ingestd.store import embedded


@pytest.mark.threat("T153")
def test_a_data_folder_is_private_and_a_lost_master_key_is_not_replaced(temporary_folder):
    folder = temporary_folder()
    settings = Settings(data_dir=folder / "data", database_settings={"fsync": "off", "shared_buffers": "64MB"})
    try:
        with base(settings):
            pass
        assert stat.S_IMODE((folder / "data").stat().st_mode) == 0o700
        assert stat.S_IMODE((folder / "data" / "master.key").stat().st_mode) == 0o600
        (folder / "data" / "master.key").rename(folder / "kept")
        with pytest.raises(Unavailable, match=r"master\.key is missing"), base(settings):
            pass
        (folder / "kept").rename(folder / "data" / "master.key")
        with base(settings):
            pass
    finally:
        embedded.remove(folder / "data" / "postgres")
        shutil.rmtree(folder)
