"""Third-party weights: where they come from, and their conversion to safetensors in the Hugging Face layout."""

from lalia.checkpoints.cache import cache_dir, cached, verify
from lalia.checkpoints.known import KNOWN, File, KnownWeights, Member, Wheel
from lalia.checkpoints.sources import Source, fetch

__all__ = ["KNOWN", "File", "KnownWeights", "Member", "Source", "Wheel", "cache_dir", "cached", "fetch", "verify"]
