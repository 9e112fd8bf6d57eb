"""`python -m service.cli`: the `gmr` command."""

from service.cli.main import app

app()
