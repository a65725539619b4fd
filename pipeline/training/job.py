"""A fine-tuning job from its spec to its checkpoints: the way of a checkpoint, top to bottom."""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import ray

from pipeline.annotate.checkpoints import read_checkpoint
from pipeline.engine.cluster import connect
from pipeline.errors import JobError, QualityError
from pipeline.storage import Storage, join, place_errors
from pipeline.table.lock import Lock
from pipeline.training.batches.augment import Augmentation, Joining
from pipeline.training.examples.building import write_skipped
from pipeline.training.examples.statistics import Statistics, statistics
from pipeline.training.feature_table.prepare import prepare
from pipeline.training.feature_table.spec import FeatureTableSpec
from pipeline.training.feature_table.table import FeatureTable
from pipeline.training.labelling import Labelled, Start, label
from pipeline.training.loop.course import Course, Outcome
from pipeline.training.loop.worker import DataParts, ModelParts, Training, train
from pipeline.training.loop.workers import Workers, run_on_workers
from pipeline.training.model.build import config_of
from pipeline.training.model.masked import MASKED_PREDICTION
from pipeline.training.optimiser.groups import Rates
from pipeline.training.optimiser.schedule import Schedule
from pipeline.training.publish import publish, settings_of
from pipeline.training.report.scores import LOSS, higher_is_better, main_metric, require_packages
from pipeline.training.spec import FinetuneSpec
from pipeline.training.spec.learning import as_range
from pipeline.training.state.checkpoints import Checkpoints, Kept
from w2vbert.features.extractor import SeamlessM4TFeatureExtractor

Say = Callable[[str], None]
