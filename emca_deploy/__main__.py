"""Run emca-deploy as `python -m emca_deploy`."""

from emca_deploy.cli import main

__all__: list[str] = []

main()
