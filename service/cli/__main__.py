"""`python -m service.cli`: the `gmr` command."""

from service.cli.main import app

if __name__ == "__main__":  # decoder processes import this module
    app(prog_name="gmr")
