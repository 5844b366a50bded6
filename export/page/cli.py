"""The verbs ``page`` and ``serve``."""

import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from pathlib import Path

from ...runtime.command import Command
from ...runtime.errors import EarmarkError
from ...runtime.hosts import port_number


def _configure_page(parser: ArgumentParser) -> None:
    parser.add_argument(
        "model",
        nargs="?",
        type=Path,
        metavar="MODEL",
        help="model file (default: the one that is shipped)",
    )
    parser.add_argument(
        "-o", "--output", required=True, type=Path, metavar="DIR", help="folder to make"
    )
    _add_tarball(parser)


def _page(arguments: Namespace) -> int:
    from .page import page_files, write_page

    files = page_files(arguments.model, arguments.onnxruntime_web)
    write_page(files, arguments.output)
    size = sum(map(len, files.values())) / 1e6
    print(
        f"{arguments.output}: {len(files)} files, {size:.1f} MB; earmark serve {arguments.output} "
        "shows it on this machine, any web server with https elsewhere",
        file=sys.stderr,
    )
    return 0


def _configure_serve(parser: ArgumentParser) -> None:
    parser.add_argument(
        "target",
        nargs="?",
        type=Path,
        metavar="DIR|MODEL",
        help="folder that earmark page wrote, or a model file (default: the shipped model)",
    )
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="name or address to listen at (default: %(default)s, this machine alone)",
    )
    parser.add_argument(
        "--port",
        type=_port,
        default=8000,
        help="0 for any that is free (default: %(default)s)",
    )
    _add_tarball(parser)


def _serve(arguments: Namespace) -> int:
    from ...runtime.sinks.sink import tell
    from ...runtime.stop import Stop
    from .page import page_files
    from .serve import PageServer, read_page

    target: Path | None = arguments.target
    if target is not None and target.is_dir():
        if arguments.onnxruntime_web is not None:
            raise EarmarkError(f"--onnxruntime-web: {target} has it already: leave it out")
        files = read_page(target)
    else:
        files = page_files(target, arguments.onnxruntime_web)
    with PageServer(files, arguments.host, arguments.port) as server, Stop() as stop:
        tell(f"{server.url} (Ctrl-C ends)")
        if server.exposure:
            tell(server.exposure)
        server.serve(lambda: stop.requested)
    return 0


def _add_tarball(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--onnxruntime-web",
        type=Path,
        metavar="FILE",
        help="tarball of the npm package onnxruntime-web (default: fetched by npm, once)",
    )


def _port(text: str) -> int:
    try:
        return port_number(text)
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from error


page = Command(
    summary="write a static page that runs a model in the browser, offline",
    configure=_configure_page,
    run=_page,
    examples=(
        "earmark page mine.onnx -o site",
        "npm pack onnxruntime-web@1.30.0 && earmark page mine.onnx -o site "
        "--onnxruntime-web onnxruntime-web-1.30.0.tgz",
    ),
)
serve = Command(
    summary="show a model in the browser on this machine",
    configure=_configure_serve,
    run=_serve,
    examples=("earmark serve", "earmark serve mine.onnx --port 8080", "earmark serve site"),
)
