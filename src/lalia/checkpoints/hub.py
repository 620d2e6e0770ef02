"""Weights from the Hugging Face hub, and what a folder must hold to be loadable."""

import json
from pathlib import Path

from lalia.errors import WeightsError

__all__ = ["PICKLED", "check_folder", "snapshot"]

_WANTED = ["*.safetensors", "*.json", "*.txt", "*.jinja"]
"""Weights that hold no code, configurations, vocabularies and chat templates. Never a pickle."""

PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


def snapshot(hub_id: str, *, offline: bool = False, description: str = "config.json") -> Path:
    """The folder of a hub repository in the hub's own cache, brought there when it is not.

    :param hub_id: ``owner/name``.
    :param offline: look only into the cache.
    :param description: the file that says what the weights are.
    :raises WeightsError: the hub cannot be reached, or has no such repository, or it has no safetensors.
    """
    from huggingface_hub import errors, snapshot_download

    try:
        folder = snapshot_download(hub_id, allow_patterns=_WANTED, ignore_patterns=["*/*"], local_files_only=offline)
    except errors.HFValidationError:
        raise WeightsError(f"{hub_id!r} is not a hub id. Give it as owner/name.") from None
    except errors.GatedRepoError:
        raise WeightsError(
            f"The hub gives {hub_id} only to those who accept its terms. Accept them on its page, then: hf auth login"
        ) from None
    except errors.RepositoryNotFoundError:
        raise WeightsError(
            f"The hub has no {hub_id}, or it is private. Check the id, or log in with: hf auth login"
        ) from None
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled):
        raise WeightsError(
            f"The hub cannot be reached, and {hub_id} is not in its cache. Connect, or give the path of a folder."
        ) from None
    except Exception as error:  # noqa: BLE001  the transport's own exceptions are not part of the hub's interface
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise WeightsError(f"{hub_id} cannot be had from the hub ({reason}). Try again later.") from None
    return check_folder(Path(folder), hub_id, description)


def check_folder(folder: Path, name: str, description: str = "config.json") -> Path:
    """``folder``, if it has a configuration and all its weights as safetensors.

    :param name: what to call it in an error.
    :raises WeightsError: it has not.
    """
    if not (folder / description).is_file():
        layout = "in the Hugging Face layout" if description == "config.json" else "that lalia wrote"
        raise WeightsError(f"{name} has no {description}. Give a folder {layout}.")
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        try:
            shards = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        except (ValueError, KeyError, TypeError, AttributeError):
            raise WeightsError(f"{name} has a damaged {index.name}. Download it again.") from None
        missing = [shard for shard in shards if not (folder / shard).is_file()]
        if missing:
            raise WeightsError(f"{name} lacks {missing[0]}. Download it again.")
    elif not any(folder.glob("*.safetensors")):
        pickled = sorted(p.name for p in folder.iterdir() if p.suffix in PICKLED)
        only = f", only {pickled[0]}, and a pickle can run code when it is opened" if pickled else ""
        raise WeightsError(f"{name} has no safetensors file{only}. Give weights as safetensors.")
    return folder
