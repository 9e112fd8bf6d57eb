"""`python -m service.cli`: the `gmr` command."""

from service.cli.main import app

if __name__ == "__main__":  # decoders import this file by another name
    app(prog_name="gmr")
