"""Models made known to crfm-helm, from the file that the environment's `JAXFT_HELM` names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxft.errors import UsageError, nearest

_KNOWN = ("source", "adapter", "chat", "batch_size", "wait")
_CLIENT = "jaxft.evaluation.helm.plugin.client"


def read_models(path: str | Path) -> dict[str, dict[str, Any]]:
    """Return the models of a `JAXFT_HELM` file by name; UsageError says what is wrong with it."""
    import yaml

    try:
        found = yaml.safe_load(Path(path).expanduser().read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"JAXFT_HELM: {path} cannot be read ({error})") from None
    except yaml.YAMLError as error:
        raise UsageError(f"{path}: broken YAML ({' '.join(str(error).split())})") from None
    if not isinstance(found, Mapping) or not all(isinstance(one, Mapping) for one in found.values()):
        raise UsageError(f"{path}: give each model's name and its settings, such as smollm2: {{source: ...}}")
    for name, settings in found.items():
        for key in settings:
            if key not in _KNOWN:
                raise UsageError(f"{path}: unknown key {key!r} of {name}{nearest(key, _KNOWN)}")
        if not settings.get("source"):
            raise UsageError(f"{path}: {name} has no source")
        if not str(name) or "/" in str(name):
            raise UsageError(f"{path}: the name {name!r} may hold no slash: HELM puts jaxft/ before it")
    return {str(name): dict(settings) for name, settings in found.items()}


def register(name: str, settings: Mapping[str, Any]) -> None:
    """Make a model known to crfm-helm as `jaxft/name`; its configuration and tokenizer are read, no weights."""
    from helm.benchmark.model_deployment_registry import ClientSpec, ModelDeployment, register_model_deployment
    from helm.benchmark.model_metadata_registry import (
        FULL_FUNCTIONALITY_TEXT_MODEL_TAG,
        TEXT_MODEL_TAG,
        ModelMetadata,
        register_model_metadata,
    )
    from helm.benchmark.tokenizer_config_registry import TokenizerConfig, TokenizerSpec, register_tokenizer_config

    from jaxft.pretrained.peeking import peek

    full = f"jaxft/{name}"
    found = peek(settings["source"])
    of_tokenizer = {key: value for key, value in settings.items() if key != "wait"}
    end = getattr(found.tokenizer, "eos_token", None) or ""
    register_tokenizer_config(TokenizerConfig(full, TokenizerSpec(f"{_CLIENT}.JaxftTokenizer", of_tokenizer), end, end))
    about = {"display_name": full, "creator_organization_name": "jaxft", "access": "open", "release_date": None}
    tags = [TEXT_MODEL_TAG, FULL_FUNCTIONALITY_TEXT_MODEL_TAG]
    register_model_metadata(ModelMetadata(name=full, description=str(settings["source"]), tags=tags, **about))
    length = getattr(found.config, "max_length", None) or 512
    register_model_deployment(
        ModelDeployment(
            name=full,
            client_spec=ClientSpec(f"{_CLIENT}.JaxftClient", dict(settings)),
            model_name=full,
            tokenizer_name=full,
            max_sequence_length=length,
        )
    )


def register_all(path: str | None) -> None:
    """Make the runs of `scenario` known to crfm-helm, and the models of a `JAXFT_HELM` file if there is one."""
    from jaxft.evaluation.helm.plugin import scenario  # noqa: F401 (importing registers its run)

    for name, settings in (read_models(path) if path else {}).items():
        register(name, settings)
