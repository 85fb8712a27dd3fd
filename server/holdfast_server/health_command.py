"""The command `holdfast-server health`: a probe that runs every few seconds, so it starts without the server's parts.

It finds the address that a server with the same settings listens on as `config` finds it, but without that package: it
imports what the settings configure, which is all of the server, and takes three times as long as what is needed here.
"""

import ipaddress
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import grpc
import typer
from grpc_health.v1 import health_pb2

DEFAULT_ADDRESS = "127.0.0.1:4653"
DEFAULT_TIMEOUT_SECONDS = 3.0
_CHECK = "/grpc.health.v1.Health/Check"
# A server is asked directly, whatever `http_proxy` says about the web.
_OPTIONS = (("grpc.enable_http_proxy", 0),)


class Unhealthy(Exception):
    """The server is not known to be serving; the message says why, in one line."""


def first_address(environment: Mapping[str, str], config_file: Path | None = None) -> str:
    """Return the first address that a server with these variables and this file listens on. Raises `Unhealthy`."""
    variables = {name.upper(): value for name, value in environment.items()}
    listen: object = variables.get("HOLDFAST_LISTEN")
    path = config_file or (Path(given) if (given := environment.get("HOLDFAST_CONFIG")) else None)
    if listen is None and path is not None:
        listen = _in_file(path)
    if listen is None:
        return DEFAULT_ADDRESS
    listed = [part.strip() for part in listen.split(",") if part.strip()] if isinstance(listen, str) else listen
    if not isinstance(listed, list) or not listed or not isinstance(listed[0], str):
        raise Unhealthy("setting listen: it names no address")
    return listed[0]


def _in_file(path: Path) -> object:
    try:
        with path.open("rb") as file:
            return tomllib.load(file).get("listen")
    except OSError as error:
        raise Unhealthy(f"config file {path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise Unhealthy(f"config file {path} is not TOML: {error}") from None


def reachable(address: str) -> str:
    """Return where a server that listens on `address` can be called: on the loopback, if it listens everywhere.

    Raises `Unhealthy`.
    """
    host, _, port = address.rpartition(":")
    if not host or not port or not address.isprintable():
        raise Unhealthy(f"{address!r} is neither host:port nor unix:/path")
    if address.startswith("unix:"):
        return address
    if port == "0":
        raise Unhealthy(f"a server on {address} picks a free port: name the one from its log with --address")
    try:
        everywhere = ipaddress.ip_address(host.removeprefix("[").removesuffix("]")).is_unspecified
    except ValueError:
        everywhere = False
    # gRPC takes calls by IPv4, too, where it listens on all of IPv6.
    return f"127.0.0.1:{port}" if everywhere else address


def check(address: str, service: str, timeout_seconds: float) -> None:
    """Return if the service is SERVING; without a name, if all of them are. Raises `Unhealthy`."""
    if not service.isprintable():
        raise Unhealthy(f"{service!r} is not the name of a service")
    with grpc.insecure_channel(address, options=_OPTIONS) as channel:
        ask = channel.unary_unary(
            _CHECK, health_pb2.HealthCheckRequest.SerializeToString, health_pb2.HealthCheckResponse.FromString
        )
        try:
            answer = ask(health_pb2.HealthCheckRequest(service=service), timeout=timeout_seconds)
        except grpc.RpcError as error:
            raise Unhealthy(_refusal(error.code(), address, service, timeout_seconds)) from None
    if answer.status != health_pb2.HealthCheckResponse.SERVING:
        raise Unhealthy(f"{service or 'the server'} at {address} is not serving")


def _refusal(code: grpc.StatusCode, address: str, service: str, timeout_seconds: float) -> str:
    match code:
        case grpc.StatusCode.UNAVAILABLE:
            return f"the server at {address} cannot be reached"
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return f"the server at {address} did not answer within {timeout_seconds:g} s"
        case grpc.StatusCode.NOT_FOUND:
            return f"the server at {address} has no service {service!r}"
        case _:
            return f"the server at {address} does not tell its health: {code.name}"


cli = typer.Typer(name="holdfast-server", pretty_exceptions_enable=False)


@cli.callback()
def _root() -> None:
    """Make `health` a command of this application, as it is one of the whole."""


@cli.command()
def health(
    address: Annotated[
        str | None, typer.Option(help="host:port or unix:/path. Without it: where the settings have a server listen.")
    ] = None,
    service: Annotated[str, typer.Option(help="One service, e.g. holdfast.v1.BlobStore. Without it: all.")] = "",
    timeout: Annotated[
        float, typer.Option(min=0.001, max=3600, help="How long to wait for the answer, in seconds.")
    ] = DEFAULT_TIMEOUT_SECONDS,
    config_file: Annotated[
        Path | None, typer.Option("--config", help="The server's TOML file, for its address.")
    ] = None,
) -> None:
    """Exit with 0 if a running server is SERVING, and with 1 and a line that says why if it is not."""
    try:
        target = reachable(first_address(os.environ, config_file) if address is None else address)
        check(target, service, timeout)
    except Unhealthy as reason:
        typer.echo(f"holdfast-server: {reason}", err=True)
        raise typer.Exit(1) from None
    typer.echo(f"{service or 'the server'} at {target} is serving")


def main() -> None:
    """Run `holdfast-server health` without the other commands."""
    cli()
