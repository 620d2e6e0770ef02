"""Weights from the Hugging Face hub, and what a folder must hold to be loadable."""

import json
from pathlib import Path

from lalia.checkpoints import kyutai
from lalia.checkpoints.tensors import weight_files
from lalia.errors import WeightsError
from lalia.store import DESCRIPTION

__all__ = ["check_folder", "name_of", "snapshot"]

_WANTED = ["*.safetensors", "*.json", "*.txt", "*.jinja", "*.model"]
"""Weights that hold no code, configurations, vocabularies and chat templates. Never a pickle."""


def snapshot(hub_id: str, *, offline: bool = False) -> Path:
    """The folder of a hub repository in the hub's own cache, brought there when it is not.

    :param hub_id: ``owner/name``.
    :param offline: look only into the cache.
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
    return check_folder(Path(folder), hub_id)


def name_of(folder: Path) -> str:
    """What to call a folder that will be looked for again: a hub id where it lies in the hub's cache, else its path."""
    place, revision = folder.parent.parent.name, folder.parent.name
    if revision == "snapshots" and place.startswith("models--"):
        return place.removeprefix("models--").replace("--", "/", 1)
    return str(folder.absolute())


def check_folder(folder: Path, name: str) -> Path:
    """``folder``, if it has a configuration and all its weights as safetensors.

    :param name: what to call it in an error.
    :raises WeightsError: it has not.
    """
    described = any((folder / file).is_file() for file in ("config.json", DESCRIPTION))
    if not described and kyutai.find(folder) is None:
        raise WeightsError(f"{name} has no config.json. Give a folder in the Hugging Face layout.")
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        try:
            shards = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        except (ValueError, KeyError, TypeError, AttributeError):
            raise WeightsError(f"{name} has a damaged {index.name}. Download it again.") from None
        missing = [shard for shard in shards if not (folder / shard).is_file()]
        if missing:
            raise WeightsError(f"{name} lacks {missing[0]}. Download it again.")
    else:
        weight_files(folder, name)
    return folder
