"""Data: manifests, importers, token shards, and batches in an order that can be repeated."""

from lalia.data.batching import Batch, BatchPlan, BatchSampler, Row
from lalia.data.corpus import Maker, Tokenizer, info_of, tokenize_corpus, unusable
from lalia.data.cutsets import from_lhotse
from lalia.data.dataset import TokenDataset, collate
from lalia.data.importers import discover, from_folder, from_librispeech
from lalia.data.manifest import SPLITS, Manifest, Skipped, Utterance, Word
from lalia.data.mixture import Mixture, MixtureDataset, Source
from lalia.data.report import Report
from lalia.data.shards import StreamInfo, TokenRow
from lalia.data.writing import ShardWriter, write_shard

__all__ = [
    "SPLITS",
    "Batch",
    "BatchPlan",
    "BatchSampler",
    "Maker",
    "Manifest",
    "Mixture",
    "MixtureDataset",
    "Report",
    "Row",
    "ShardWriter",
    "Skipped",
    "Source",
    "StreamInfo",
    "TokenDataset",
    "TokenRow",
    "Tokenizer",
    "Utterance",
    "Word",
    "collate",
    "discover",
    "from_folder",
    "from_lhotse",
    "from_librispeech",
    "info_of",
    "tokenize_corpus",
    "unusable",
    "write_shard",
]
