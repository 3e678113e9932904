"""The command line as it is called: each command's name, arguments and help.

What a command does is in the module of its name. It is imported when the command runs, so that help and the small
commands need not wait for the API, the job engine and the data plane of the service.
"""

from __future__ import annotations

import gc
import json
from pathlib import Path
from typing import Annotated

import typer

from ingestd import __version__
from ingestd.app.role import Role
from ingestd.cli.step import Step

app = typer.Typer(
    name="ingestd",
    help="File ingestion for a customer data platform: SFTP push, scheduled pull and HTTP upload, one pipeline.",
    epilog="Exit codes: 0 done; 1 it could not be done, stderr says why; 2 called wrongly. `check` and `push --follow`"
    " also end with 3 (some rows rejected) and 4 (file refused, or no row good).",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
of_accounts = typer.Typer(help="Make, list and delete accounts.", no_args_is_help=True)
of_keys = typer.Typer(
    help="Import keys (SSH public keys that open the SFTP door), and master keys.", no_args_is_help=True
)
of_messages = typer.Typer(help="E-mails: what was sent to whom, and those that were kept.", no_args_is_help=True)
app.add_typer(of_accounts, name="accounts")
app.add_typer(of_keys, name="keys")
app.add_typer(of_messages, name="messages")

DataFile = Annotated[Path, typer.Argument(help="The data file.", exists=True, dir_okay=False)]
ManifestFile = Annotated[Path, typer.Argument(help="Its manifest.", exists=True, dir_okay=False)]
Account = Annotated[str, typer.Argument(help="The account's id, acc_….")]


def _tell_version(asked: bool) -> None:
    if asked:
        typer.echo(f"ingestd {__version__}")
        raise typer.Exit


@app.callback()
def every(
    _: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_tell_version, is_eager=True)
    ] = False,
) -> None:
    """What holds for every command."""


@app.command()
def serve(
    roles: Annotated[
        str, typer.Option(envvar="INGESTD_ROLES", help="What this process does; any number of processes may run.")
    ] = ",".join(Role),
    migrate: Annotated[
        bool, typer.Option("--migrate", help="Bring INGESTD_DATABASE_URL's schema up to date before starting.")
    ] = False,
) -> None:
    """Run the service: HTTP API, SFTP server, workers and clock, with an embedded PostgreSQL where none is set.

    Everything is set by INGESTD_… variables, such as INGESTD_DATA_DIR, INGESTD_HTTP__PORT, INGESTD_SFTP__PORT.
    The first start on an empty embedded database makes an account and prints how to use it. On a database of your own
    it refuses to start while migrations are missing.

    Example: ingestd serve
    Example: ingestd serve --roles worker,clock
    """
    wanted = _roles(roles)
    from ingestd.settings import Settings

    settings = Settings()  # wrong ones are refused before all the rest is imported
    gc.disable()  # to look for garbage among what is imported, which is none, would be a tenth of the start
    from ingestd.cli.serve import run

    gc.enable()
    run(settings, wanted, migrating=migrate)


def _roles(text: str) -> list[Role]:
    try:
        return [Role(name.strip()) for name in text.split(",")]
    except ValueError:
        raise typer.BadParameter(f"Roles are {', '.join(Role)}.", param_hint="--roles") from None


@app.command()
def demo() -> None:
    """Start the real service in a temporary folder, push files, refresh a segment, and show what becomes of them."""
    from ingestd.cli.demo import run

    run()


@app.command()
def check(
    file: DataFile,
    manifest: ManifestFile,
    errors: Annotated[Path | None, typer.Option(help="Write the error file there, if rows are rejected.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the verdict as one JSON object.")] = False,
) -> None:
    """Say what the service would make of a file: the same rules, figures and error file, without sending anything.

    Exit code 0: every row is accepted. 3: some rows are rejected, the others would be applied. 4: the manifest or the
    file is refused, or no row is good. 1 and 2: the check could not be made.

    Example: ingestd check profiles.csv profiles.manifest --errors rejected.csv

    In a pipeline: ingestd check x.csv x.manifest --json > verdict.json && sftp -b upload.txt acc_01k9…@sftp.example.org

    What only the service knows is not looked at: what other files and stored profiles say of a person, which
    recipients are registered, which manifests have been used.
    """
    from ingestd.cli.check import run

    raise typer.Exit(run(file, manifest, errors, as_json=as_json))


@app.command()
def push(
    file: DataFile,
    manifest: ManifestFile,
    *,
    key: Annotated[
        Path, typer.Option(envvar="INGESTD_PUSH_KEY", help="Your SSH private key.", exists=True, dir_okay=False)
    ],
    api_key: Annotated[
        str, typer.Option(envvar="INGESTD_PUSH_API_KEY", help="An API key of the account; best as a variable.")
    ] = "",
    api: Annotated[str, typer.Option(envvar="INGESTD_PUSH_API", help="The API's address.")] = "http://127.0.0.1:8080",
    host: Annotated[
        str, typer.Option(envvar="INGESTD_PUSH_HOST", help="The SFTP server. Default: what the API says.")
    ] = "",
    port: Annotated[int, typer.Option(envvar="INGESTD_PUSH_PORT", help="Its port. Default: what the API says.")] = 0,
    user: Annotated[
        str, typer.Option(envvar="INGESTD_PUSH_USER", help="The account's id. Default: what the API says.")
    ] = "",
    known_hosts: Annotated[
        Path | None,
        typer.Option(
            envvar="INGESTD_PUSH_KNOWN_HOSTS",
            help="A file of host keys. Default: the fingerprints of the API.",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Wait, and show what becomes of it.")] = False,
) -> None:
    """Push a file and its manifest by SFTP.

    With an API key nothing else than your SSH key is needed: the API says where the server is and how to know it.

    Exit code 0: pushed; with --follow: every row was accepted. 3: some rows were rejected. 4: the file or its manifest
    was refused, or no row was good. 1: it could not be done. 2: called wrongly.

    Example: ingestd push profiles.csv profiles.manifest --key ~/.ssh/id_ed25519 --follow
    """
    from ingestd.cli.push import Server, run

    given = Server(host, port, user, known_hosts)
    raise typer.Exit(run(file, manifest, key, given, api=api, api_key=api_key, follow=follow))


@app.command()
def doctor() -> None:
    """Show the settings in force and check everything the service depends on. Changes nothing.

    Exit code 0: all is well. 1: something is not; each line that begins with FAIL says what to do.

    Example: ingestd doctor
    """
    from ingestd.cli.doctor import run

    run()


@app.command()
def migrate() -> None:
    """Bring the database of INGESTD_DATABASE_URL to the newest schema. The embedded one is migrated at every start."""
    from ingestd.cli.migrate import run

    run()


@app.command()
def backup(folder: Annotated[Path, typer.Argument(help="A new or empty folder.", file_okay=False)]) -> None:
    """Write a backup of everything into a folder: the database, the blobs and the keys. The service may run.

    The backup can be read by whoever has it: it holds the master key. Keep that file apart from the rest.

    Example: ingestd backup /backups/2026-11-25
    """
    from ingestd.cli.backup import backup as run

    run(folder)


@app.command()
def restore(folder: Annotated[Path, typer.Argument(help="A folder that `backup` wrote.", exists=True)]) -> None:
    """Bring a backup back: to a data folder, database and blob store that are empty. Then start the service.

    What was being processed when the backup was made goes on. Webhooks may come again, under the same id.

    Example: INGESTD_DATA_DIR=/srv/ingestd ingestd restore /backups/2026-11-25
    """
    from ingestd.cli.backup import restore as run

    run(folder)


@app.command()
def openapi() -> None:
    """Print the OpenAPI document of the HTTP API as JSON.

    Example: ingestd openapi > openapi.json
    """
    from ingestd.api.app import document

    print(json.dumps(document(), indent=2, ensure_ascii=False))


@of_accounts.command("create")
def create_account(
    name: Annotated[str, typer.Argument(help="What the account is called.")],
    time_zone: Annotated[str, typer.Option(help="IANA name; scheduled runs go by it.")] = "UTC",
    email_domain: Annotated[
        list[str] | None, typer.Option(help="A domain that manifests may name in clientEmail; may be repeated.")
    ] = None,
    admin: Annotated[bool, typer.Option("--admin", help="Let the API key make accounts, too.")] = False,
) -> None:
    """Make an account and its first API key, which is printed once.

    Example: ingestd accounts create "Acme" --time-zone Europe/Vienna --email-domain acme.example
    """
    from ingestd.cli import accounts

    accounts.create(name, time_zone=time_zone, email_domains=email_domain or [], admin=admin)


@of_accounts.command("delete")
def delete_account(account: Account, yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False) -> None:
    """Delete an account with its people, files and keys, for ever; refused while an ingestion of it waits or runs.

    Example: ingestd accounts delete acc_01k9…
    """
    from ingestd.cli import accounts

    accounts.delete(account, yes=yes)


@of_accounts.command("list")
def list_accounts() -> None:
    """List all accounts."""
    from ingestd.cli import accounts

    accounts.list_all()


@of_keys.command("rotate-master")
def rotate_master(step: Annotated[Step, typer.Argument(help="In this order.", show_default=False)]) -> None:
    """Rotate the master key: `add` a new one, `seal` every account's keys by it, `drop` the old one.

    `add` and `drop` change data/master.key, or print what INGESTD_MASTER_KEY has to be where that is set. Restart every
    process of the service after `add` and before `seal`: one that does not know the new key opens nothing sealed by it.

    Example: ingestd keys rotate-master add
    """
    from ingestd.cli.master_key import rotate

    rotate(step)


@of_keys.command("master")
def new_master_key() -> None:
    """Print a new master key, for INGESTD_MASTER_KEY: the one secret of a service with a database of its own.

    Example: export INGESTD_MASTER_KEY="$(ingestd keys master)"
    """
    from ingestd.keyring import new_master

    typer.echo(new_master())


@of_keys.command("list")
def list_keys(account: Account) -> None:
    """List an account's import keys: name, fingerprint, and when it was last used or revoked.

    Example: ingestd keys list acc_01k9…
    """
    from ingestd.cli import keys

    keys.list_all(account)


@of_keys.command("revoke")
def revoke_key(
    account: Account,
    fingerprint: Annotated[str, typer.Argument(help="The key's, SHA256:…, as `keys list` shows it.")],
) -> None:
    """Revoke an import key: from now on it opens nothing, and its open sessions can do nothing more.

    Example: ingestd keys revoke acc_01k9… SHA256:0abc…
    """
    from ingestd.cli import keys

    keys.revoke(account, fingerprint)


@of_keys.command("add")
def add_key(
    account: Account,
    public_key: Annotated[Path, typer.Argument(help="The file that ends in .pub.", exists=True, dir_okay=False)],
    name: Annotated[str, typer.Option(help="What the key is called, unique in the account; default: the file's.")] = "",
) -> None:
    """Register an SSH public key.

    Example: ingestd keys add acc_01k9… ~/.ssh/id_ed25519.pub --name warehouse
    """
    from ingestd.cli import keys

    keys.add(account, public_key, name)


@of_messages.command("list")
def list_messages(
    account: Account, at_most: Annotated[int, typer.Option(help="How many, the newest first.", min=1)] = 50
) -> None:
    """List an account's newest mails: when, what of, to whom, and what became of each.

    Example: ingestd messages list acc_01k9…
    """
    from ingestd.cli import messages

    messages.list_all(account, at_most=at_most)


@of_messages.command("show")
def show_message(message: Annotated[str, typer.Argument(help="The message's id, msg_….")]) -> None:
    """Print a mail that was kept, as a mail program reads it (.eml).

    Example: ingestd messages show msg_01k9… > mail.eml
    """
    from ingestd.cli import messages

    messages.show(message)
