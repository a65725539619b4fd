"""Wav2Vec2-BERT in PyTorch: the published names, signatures, state-dict keys and numbers.

>>> from w2vbert import Wav2Vec2BertForCTC, Wav2Vec2BertProcessor
"""

from w2vbert.config import Wav2Vec2BertConfig
from w2vbert.features.extractor import SeamlessM4TFeatureExtractor
from w2vbert.heads import (
    Wav2Vec2BertForAudioFrameClassification,
    Wav2Vec2BertForCTC,
    Wav2Vec2BertForSequenceClassification,
    Wav2Vec2BertForXVector,
)
from w2vbert.model import Wav2Vec2BertModel
from w2vbert.pretrained.model import Wav2Vec2BertPreTrainedModel
from w2vbert.processor import Wav2Vec2BertProcessor
from w2vbert.tokenizer.tokenizer import Wav2Vec2CTCTokenizer

__version__ = "0.1.0"

__all__ = [
    "SeamlessM4TFeatureExtractor",
    "Wav2Vec2BertConfig",
    "Wav2Vec2BertForAudioFrameClassification",
    "Wav2Vec2BertForCTC",
    "Wav2Vec2BertForSequenceClassification",
    "Wav2Vec2BertForXVector",
    "Wav2Vec2BertModel",
    "Wav2Vec2BertPreTrainedModel",
    "Wav2Vec2BertProcessor",
    "Wav2Vec2CTCTokenizer",
]
