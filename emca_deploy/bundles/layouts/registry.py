"""The layouts by name."""

from emca_deploy.bundles.layouts.served import Layout
from emca_deploy.bundles.layouts.triton import TRITON

__all__ = ["LAYOUTS"]

LAYOUTS: dict[str, Layout] = {layout.name: layout for layout in (TRITON,)}
