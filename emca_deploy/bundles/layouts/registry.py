"""The layouts by name."""

from emca_deploy.bundles.layouts.kserve import KSERVE
from emca_deploy.bundles.layouts.mlflow import MLFLOW
from emca_deploy.bundles.layouts.ovms import OVMS
from emca_deploy.bundles.layouts.served import Layout
from emca_deploy.bundles.layouts.triton import TRITON

__all__ = ["LAYOUTS"]

LAYOUTS: dict[str, Layout] = {layout.name: layout for layout in (TRITON, OVMS, MLFLOW, KSERVE)}
