"""The option that names the history's file."""

from emca_deploy.commands._types import INPUT, option

__all__ = ["store_option"]

store_option = option(
    "--store", type=INPUT, metavar="FILE", unset="history.db in ~/.local/share/emca-deploy", help="File of the history."
)
