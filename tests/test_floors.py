"""Every foreign library has its home: the import graph is held to the table below.

That imports point down the floors is import-linter's business (`make check`). Homes are checked here because its
"protected" contract cannot say that a library *without* an entry is refused.
"""

import ast
import sys

import grimp
import pytest

HOMES = {
    "aioftp": {"fetch", "cli"},
    "aiosmtplib": {"notify"},
    "alembic": {"store"},
    "apscheduler": {"scheduler"},
    "asyncssh": {"sftpd", "fetch", "cli"},
    "cryptography": {"domain", "keyring"},
    "dbos": {"ingest.engine"},
    "email_validator": {"domain"},
    "fastapi": {"api"},
    "h11": {"notify"},
    "python_multipart": {"api"},
    "httpx": {"notify", "cli"},
    "jinja2": {"notify"},
    "limits": {"api"},
    "markupsafe": {"notify"},
    "numpy": {"hashes", "keyring", "pipeline", "store.load"},
    "obstore": {"blobs"},
    "opentelemetry": {"tracing"},
    "pebble": {"ingest.pool"},
    "phonenumbers": {"pipeline"},
    "polars": {"hashes", "pipeline", "store.load"},
    "polars_hash": {"pipeline"},
    "prometheus_client": {"metrics"},
    "psutil": {"store.embedded"},
    "psycopg": {"store"},
    "pyarrow": {"pipeline", "store.load"},
    "pydantic": {"domain", "settings", "api", "ingest.work", "cli"},
    "pydantic_core": {"store.engine", "api.ids"},
    "pydantic_settings": {"settings"},
    "rich": {"cli"},
    "sqlalchemy": {"store"},
    "starlette": {"api"},
    "structlog": {"telemetry"},
    "tink": {"keyring"},
    "typer": {"cli"},
    "typing_extensions": {"api"},
    "uuid_utils": {"store"},
    "uvicorn": {"app"},
}

# A session or connection is handed from floor to floor, so its type may be named anywhere; a statement may not.
HANDED_ON = {"AsyncSession", "AsyncEngine", "Session", "Connection", "Engine", "Row"}

UNSAFE = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "yaml"}


@pytest.fixture(scope="module")
def graph():
    return grimp.build_graph(
        "ingestd", include_external_packages=True, exclude_type_checking_imports=True, cache_dir=None
    )


def strangers(graph):
    """Yield (library, module of ours) for every import of what is neither ours nor Python's."""
    for library in graph.modules:
        if library.split(".")[0] != "ingestd" and library not in sys.stdlib_module_names:
            for module in graph.find_modules_that_directly_import(library):
                yield library, module.removeprefix("ingestd.")


def is_in(module, home):
    return module == home or module.startswith(f"{home}.")


def imports_only_types(graph, library, module):
    """Tell whether a module imports nothing of a library but HANDED_ON, each import on one line."""
    for found in graph.get_import_details(importer=f"ingestd.{module}", imported=library):
        line = found["line_contents"]
        statement = None if line.endswith("(") else ast.parse(line).body[0]
        if not isinstance(statement, ast.ImportFrom) or not {each.name for each in statement.names} <= HANDED_ON:
            return False
    return True


def test_every_foreign_library_is_imported_in_its_home_only(graph):
    abroad = {
        f"{module} imports {library}"
        for library, module in strangers(graph)
        if not any(is_in(module, home) for home in HOMES.get(library, ()))
        and not (library == "sqlalchemy" and imports_only_types(graph, library, module))
    }
    assert abroad == set()


def test_every_home_is_lived_in(graph):
    lived_in = {
        (library, home)
        for library, module in strangers(graph)
        for home in HOMES.get(library, ())
        if is_in(module, home)
    }
    assert {(library, home) for library, homes in HOMES.items() for home in homes} - lived_in == set()


@pytest.mark.threat("T98", "T151")
def test_nothing_reads_a_format_that_can_run_code(graph):
    assert graph.modules & UNSAFE == set()


def test_the_graph_is_the_real_one(graph):
    assert "sqlalchemy" in dict(strangers(graph))
    assert not imports_only_types(graph, "sqlalchemy", "store.base")
