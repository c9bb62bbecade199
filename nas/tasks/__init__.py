"""What networks are trained for; :mod:`nas.tasks.base` says what a task is."""

from nas.tasks.anomaly import AnomalyDetection
from nas.tasks.base import TASKS, Task
from nas.tasks.classification import (
    AudioClassification,
    Classification,
    ImageClassification,
    SignalClassification,
)
from nas.tasks.detection import ObjectDetection
from nas.tasks.embedding import AudioEmbedding, Embedding, ImageEmbedding, SignalEmbedding
from nas.tasks.language import LanguageModelling
from nas.tasks.multi_label import MultiLabelClassification
from nas.tasks.regression import ImageRegression, Regression, SignalRegression
from nas.tasks.segmentation import SemanticSegmentation
from nas.tasks.sequences import SequenceToSequence

__all__ = [
    "TASKS",
    "AnomalyDetection",
    "AudioClassification",
    "AudioEmbedding",
    "Classification",
    "Embedding",
    "ImageClassification",
    "ImageEmbedding",
    "ImageRegression",
    "LanguageModelling",
    "MultiLabelClassification",
    "ObjectDetection",
    "Regression",
    "SemanticSegmentation",
    "SequenceToSequence",
    "SignalClassification",
    "SignalEmbedding",
    "SignalRegression",
    "Task",
]
