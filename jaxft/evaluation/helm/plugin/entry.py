"""What crfm-helm imports to have jaxft: its entry point of the group `helm`, or one of `helm-run --plugins`."""

import os

from jaxft.evaluation.helm.plugin.registering import register_all

register_all(os.environ.get("JAXFT_HELM"))
