"""The command `sanderling serve`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from sanderling.cli.options import Json
from sanderling.cli.output import finish, note
from sanderling.engine import Engine
from sanderling.options import OptionTypes, check_names

TOKEN = "SANDERLING_SERVICE_TOKEN"
COLLECTOR_TOKEN = "SANDERLING_TOKEN"
MIN_TOKEN = 16
SETTABLE = {"int": int, "bool": bool, "float | None": float | None, "str | None": str | None}


State = Annotated[
    Path | None,
    typer.Option(help="The engine's state folder, for this process alone: one service each."),
]
SocketPath = Annotated[
    Path | None,
    typer.Option("--socket", help="Listen on this Unix socket; its file is made."),
]
Port = Annotated[
    int | None,
    typer.Option(min=0, max=65535, help="Listen on this port of 127.0.0.1; 0 is a free one."),
]
TokenFile = Annotated[
    Path | None,
    typer.Option(
        help=f"File with the token that apps send; or set {TOKEN}. A port needs one; a socket"
        " without one is for this user alone."
    ),
]
Collector = Annotated[
    str | None, typer.Option(help=f"URL to upload events to; set {COLLECTOR_TOKEN} to its token.")
]
OtherOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="Another option of `Engine.open`, as window_s=3600; may be repeated.",
    ),
]


def serve(
    bundle: Annotated[Path, typer.Option(help="Folder of the bundle.")],
    state: State = None,
    socket: SocketPath = None,
    port: Port = None,
    token_file: TokenFile = None,
    collector: Collector = None,
    releases: Annotated[str | None, typer.Option(help="URL of the signed releases.")] = None,
    root: Annotated[
        Path | None, typer.Option(help="The root.json that the app ships with.")
    ] = None,
    options: OtherOptions = None,
    as_json: Json = False,
) -> None:
    """Serve the engine's whole API as JSON over HTTP to apps on this machine, until SIGTERM.

    Example: sanderling serve --bundle bundle/ --state state/ --socket engine.sock
    """
    if (socket is None) == (port is None):
        raise typer.BadParameter("expected either --socket or --port; give one of them")
    token = _read_token(token_file, is_needed=port is not None)
    settings = _parse(options or [])

    try:
        from sanderling.service import server
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"serve needs the extra `serve`: pip install 'sanderling[serve]' ({error})"
        ) from error

    collector_token = os.environ.get(COLLECTOR_TOKEN) or None
    engine = Engine.open(
        bundle, state, collector, collector_token, releases=releases, root=root, **settings
    )
    with engine:
        _check_storage(engine, state)
        server.warm_up(engine)
        if socket is not None:
            listener = server.listen_on_path(socket, for_everybody=token is not None)
            where = f"unix:{socket}"
        else:
            listener = server.listen_on_port(port or 0)
            where = f"http://{server.HOST}:{listener.getsockname()[1]}"
        try:
            note(f"serving release {engine.release} on {where}; stop with Ctrl-C or SIGTERM")
            server.run(engine, listener, token)
        finally:
            if socket is not None:
                server.remove_socket(socket)
    finish({"served": where, "stopped": True}, "stopped; nothing is left to write", as_json)


def _read_token(file: Path | None, *, is_needed: bool) -> str | None:
    """Return the service's token: from a file, or from the environment."""
    if file is None:
        name, token = TOKEN, os.environ.get(TOKEN, "")
    else:
        name, token = str(file), file.read_text(encoding="utf-8")
    token = token.strip()
    if not token and file is None and not is_needed:
        return None
    if not token:
        raise ValueError(
            f"{name}: expected a token, for any program of this machine can reach a port, found"
            " none; make one: openssl rand -hex 24 > token.txt, and pass --token-file token.txt"
        )
    if len(token) < MIN_TOKEN or not (token.isascii() and token.isprintable()) or " " in token:
        raise ValueError(
            f"{name}: expected at least {MIN_TOKEN} letters and digits, found {len(token)}"
            " characters; make a token: openssl rand -hex 24"
        )
    return token


def _parse(options: list[str]) -> dict[str, Any]:
    """Return options of `Engine.open` from texts such as `window_s=3600`."""
    settings: dict[str, Any] = {}
    for option in options:
        name, is_pair, text = option.partition("=")
        if not is_pair:
            raise typer.BadParameter(f"--set: expected NAME=VALUE, found {option!r:.80}")
        try:
            check_names([name])
        except TypeError as error:
            raise typer.BadParameter(f"--set: {error}") from error
        type_ = SETTABLE.get(OptionTypes.__annotations__[name].__forward_arg__)
        if type_ is None or name in ("releases", "root"):
            raise typer.BadParameter(f"--set: {name}: expected an option that a text can set")
        try:
            settings[name] = msgspec.convert(text, type_, strict=False)
        except msgspec.ValidationError as error:
            raise typer.BadParameter(f"--set: {name}: {error}, found {text!r:.80}") from error
    return settings


def _check_storage(engine: Engine, state: Path | None) -> None:
    """Raise `OSError` where the state folder cannot be used: a service whose rewards are lost
    should not start."""
    if state is not None and engine.storage_fault is not None:
        raise OSError(
            f"{engine.storage_fault}; a state folder has one engine, so one service: run one"
            " process for each, never several workers"
        )
