"""`python -m holdfast_server` is `holdfast-server`."""

from holdfast_server.cli import main

main()
