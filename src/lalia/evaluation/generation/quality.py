"""How generated speech sounds: predictors of mean opinion scores (MOS), from 1 (bad) to 5 (excellent).

None of them listens to what is said, and they disagree: on one synthetic voice DNSMOS gave 2.4, its P.808 network 3.3
and DistillMOS 2.7. Compare figures of one predictor in one version only.

Here are DNSMOS and `DistillMOS`, whose weights ``lalia fetch`` brings. Others take part as `ExportedMOS`, where
somebody has exported them, features and all, as ONNX or TorchScript. The checkpoints of UTMOS and NISQA as published
are pickles, which lalia does not open.
"""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch

from lalia.audio import Audio, AudioLike
from lalia.errors import ConfigError, DataError, MissingDependency, WeightsError
from lalia.evaluation.dnsmos import DNSMOS
from lalia.evaluation.generation.recordings import each
from lalia.evaluation.results import tool
from lalia.evaluation.statistics import mean
from lalia.files import sha256

__all__ = ["DNSMOSRating", "ExportedMOS", "MOSPredictor", "evaluate_quality"]

_MEASURES = ("ovrl", "sig", "bak", "p808")


class MOSPredictor(Protocol):
    """Rates recordings. ``name`` and ``version`` go into every result that it had a part in."""

    @property
    def name(self) -> str: ...
    @property
    def version(self) -> str: ...
    def __call__(self, recordings: Sequence[Audio], /) -> list[float]:
        """The rating of row 0 of each.

        :raises AudioError: there is nothing in a recording.
        """
        ...


class DNSMOSRating:
    """One of the four ratings of DNSMOS.

    :param measure: of the whole (``ovrl``), the speech (``sig``), what is behind it (``bak``), or the whole after
        P.808 (``p808``).
    :param judge: made when not given.
    :raises MissingDependency: onnxruntime is not installed.
    :raises WeightsError: the weights cannot be had.
    """

    def __init__(self, measure: Literal["ovrl", "sig", "bak", "p808"] = "ovrl", *, judge: DNSMOS | None = None) -> None:
        if measure not in _MEASURES:
            raise ConfigError(f"DNSMOS has no measure {measure!r}. Choose {', '.join(_MEASURES)}.")
        self._measure, self._judge = measure, judge or DNSMOS()
        self.name, self.version = f"{self._judge.name}-{measure}", self._judge.version

    def __call__(self, recordings: Sequence[Audio]) -> list[float]:
        return [float(getattr(self._judge(audio), self._measure)) for audio in recordings]


class ExportedMOS:
    """Any predictor that was exported as a network from samples [1, N] in [-1, 1], float32, to ratings.

    :param path: an ONNX file (``.onnx``), or else TorchScript, of which nothing is unpickled by Python.
    :param sample_rate: that the network was made for, in Hz.
    :param output: which of the numbers that it gives is the rating, where it gives several (NISQA: five).
    :param name: the name of the file when not given.
    :raises MissingDependency: it is ONNX, and onnxruntime is not installed.
    :raises WeightsError: there is no such network in the file.
    """

    def __init__(self, path: str | Path, *, sample_rate: int, output: int = 0, name: str | None = None) -> None:
        file = Path(path)
        if not file.is_file():
            raise WeightsError(f"{file} is no file. Name a network as ONNX or TorchScript.")
        self.name, self.sample_rate = name or file.stem, sample_rate
        self._output = output
        self.version = f"weights {sha256(file)[:12]}, {sample_rate} Hz, output {output}"
        self._network = _onnx(file) if file.suffix == ".onnx" else _torchscript(file)

    def __call__(self, recordings: Sequence[Audio]) -> list[float]:
        """The rating of row 0 of each, mixed to mono.

        :raises DataError: the network has no such output, or gives what is no number.
        """
        ratings = []
        for audio in recordings:
            samples = audio.row(0).mono().to(self.sample_rate).samples[0].detach().float().cpu().clamp(-1, 1)
            found = self._network(samples.numpy()).ravel()
            if not (0 <= self._output < len(found) and math.isfinite(found[self._output])):
                raise DataError(
                    f"{self.name} gives {found.tolist()}, and no rating at {self._output}. Name another output."
                )
            ratings.append(float(found[self._output]))
        return ratings


def _onnx(file: Path) -> Callable[[np.ndarray], np.ndarray]:
    try:
        import onnxruntime
    except ImportError:
        raise MissingDependency("onnxruntime", "eval") from None
    options = onnxruntime.SessionOptions()
    # More threads add up in another order, and last digits would differ from run to run.
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # noqa: BLE001  onnxruntime raises nothing more precise
        raise WeightsError(f"{file} is no ONNX network that can be run ({_line(error)}). Export it again.") from None
    inputs = session.get_inputs()
    if len(inputs) != 1:
        raise WeightsError(f"{file} has {len(inputs)} inputs. Export it to take samples [1, N] alone.")
    return lambda samples: np.asarray(session.run(None, {inputs[0].name: samples})[0])


def _torchscript(file: Path) -> Callable[[np.ndarray], np.ndarray]:
    try:
        with warnings.catch_warnings():
            # Of what is exported today; files of others are what they are.
            warnings.simplefilter("ignore", DeprecationWarning)
            network = torch.jit.load(str(file), map_location="cpu").eval()
    except Exception as error:  # noqa: BLE001  torch raises nothing more precise
        raise WeightsError(f"{file} is no TorchScript ({_line(error)}). Export the network with torch.jit.") from None

    def run(samples: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return np.asarray(network(torch.from_numpy(samples)))

    return run


def _line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")


def evaluate_quality(recordings: Mapping[str, AudioLike], predictor: MOSPredictor, *, seed: int = 0) -> dict[str, Any]:
    """The mean rating of recordings by id. Silence has no rating: it has failed, and is counted.

    :param seed: of the bootstrap over recordings.
    :returns: ``asked``, ``answered``, ``failed``; ``summary``: the ``mos``; ``items``; ``failures``.
    """
    ratings, failures = each(recordings, lambda audio: predictor([audio])[0])
    return {
        "asked": len(recordings),
        "answered": len(ratings),
        "failed": len(failures),
        "settings": {"predictor": tool(predictor)},
        "summary": {"mos": mean(list(ratings.values()), seed=seed).to_dict()},
        "items": [{"id": key, "mos": rating} for key, rating in ratings.items()],
        "failures": failures,
    }
