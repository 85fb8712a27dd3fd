"""The command `holdfast-server`, and `python -m holdfast_server`."""

import sys


def main() -> None:
    """Run the command line.

    `health` runs every few seconds in a container: it goes without the imports that the other commands need.
    """
    if sys.argv[1:2] == ["health"]:
        from holdfast_server.health_command import main as run  # noqa: PLC0415
    else:
        from holdfast_server.cli import main as run  # noqa: PLC0415
    run()


if __name__ == "__main__":
    main()
