"""Runs that version 0.1 began: it named some sizes otherwise, and stored the observation as its `repr`."""

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from jaxm2m import population as populations
from jaxm2m._types import PathLike
from jaxm2m.emg.lfads._model import LFADSConfig
from jaxm2m.emg.lfads._observation import parse_observation
from jaxm2m.emg.lfads._trainable import SequentialVAE

_MODEL = "sequential VAE"
_OLD_NAMES: dict[str, str] = {"ic_dim": "initial", "co_dim": "inputs", "fac_dim": "factors"}


class SequentialVAE01(SequentialVAE):
    """The same model under the settings that version 0.1 stored, so that its run is recognised and goes on."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """As version 0.1 wrote them: numbers and text on one level."""
        settings = asdict(self)
        config: dict[str, Any] = settings.pop("config") | {"observation": repr(self.config.observation)}
        settings |= {"offset": " ".join(repr(float(x)) for x in self.offset), "trained": " ".join(self.trained)}
        old_config = {_OLD_NAMES.get(name, name): value for name, value in config.items()}
        return {"model": _MODEL} | old_config | settings


def is_version_0_1(model: Mapping[str, Any]) -> bool:
    """Tell whether a model's settings have the form of version 0.1."""
    return model.get("model") == _MODEL


def parse_settings_0_1(model: Mapping[str, Any]) -> SequentialVAE:
    """Read the settings of a run of version 0.1; `KeyError`, `TypeError` or `ValueError` if they are damaged."""
    new_names = {old: new for new, old in _OLD_NAMES.items()}
    config = {new_names.get(name, name): value for name, value in model.items() if name != "model"}
    rest = {f.name: config.pop(f.name) for f in fields(SequentialVAE) if f.name != "config"}
    rest["offset"] = tuple(float(x) for x in rest["offset"].split())
    rest["trained"] = tuple(rest["trained"].split())
    observation = parse_observation(_parse_repr(config.pop("observation")))
    return SequentialVAE(LFADSConfig(**config, observation=observation), **rest)


def adopt_settings(trainable: SequentialVAE, directory: PathLike | None) -> SequentialVAE:
    """Put the trainable under the settings of version 0.1 if that began the run in `directory`."""
    if directory is None:
        return trainable
    try:
        model = populations.read_config(directory)["model"]
    except (OSError, ValueError):  # no run is there yet, or `population.train` says what is wrong with it
        return trainable
    if not is_version_0_1(model):
        return trainable
    return SequentialVAE01(**{f.name: getattr(trainable, f.name) for f in fields(trainable)})


def _parse_repr(text: str) -> dict[str, Any]:
    """ "Gamma(floor=0.0001)" to its name and numbers."""
    name, _, rest = text.partition("(")
    numbers = dict(part.split("=") for part in rest.rstrip(")").split(", ") if part)
    return {"name": name, **{key: float(value) for key, value in numbers.items()}}
