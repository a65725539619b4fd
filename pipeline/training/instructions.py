"""What the workers of a run are told: its settled facts, as each of them needs them."""

from __future__ import annotations

import torch

from pipeline.storage import join
from pipeline.table.lock import Lock
from pipeline.training.batches.augment import Augmentation, Joining
from pipeline.training.batches.mel import COLOURS
from pipeline.training.loop.course import Course
from pipeline.training.loop.worker import DataParts, Training
from pipeline.training.loop.workers import Workers
from pipeline.training.model.masked import MASKED_PREDICTION
from pipeline.training.optimiser.groups import Rates
from pipeline.training.optimiser.schedule import Schedule
from pipeline.training.publish import settings_of
from pipeline.training.report.scores import higher_is_better, main_metric
from pipeline.training.settle import Job
from pipeline.training.spec.learning import as_range
from pipeline.training.state.checkpoints import Kept

_DEFAULT_EPOCHS = 10.0


def training_of(job: Job, lock: Lock | None, workers: Workers) -> Training:
    """What the workers are handed; without a lock for what is only planned."""
    spec, optimiser, folder = job.spec, job.spec.optimiser, join(job.output, "data")
    learner, _ = job.model.build()
    rates = Rates(
        usual=optimiser.learning_rate,
        new=optimiser.head_learning_rate or 10 * optimiser.learning_rate,
        layer_decay=optimiser.layer_decay,
        weight_decay=optimiser.weight_decay,
        betas=optimiser.betas,
    )
    augmentation = spec.augmentation
    data = DataParts(
        train=join(folder, "train.arrow"),
        valid=None if job.labelled.valid is None else join(folder, "valid.arrow"),
        budget=spec.cluster.token_budget or (65_536 if workers.gpus else 4_096),
        augmentation=Augmentation(
            gain_db=augmentation.gain_db,
            noise=tuple(name for name in augmentation.noise if name in COLOURS),
            noise_prob=augmentation.noise_prob,
            noise_snr_db=as_range(augmentation.noise_snr_db),
            mel_warp=augmentation.mel_warp,
            freq_masks=augmentation.freq_masks,
            freq_mask_width=augmentation.freq_mask_width,
        ),
        noise=tuple(job.noise),
        joining=_joining(job),
        cache_bytes=int(spec.cluster.features_cache_gb * (1 << 30)),
        window_frames=_window_frames(job),
    )
    return Training(
        output=job.output,
        storage=job.storage,
        lock=None if lock is None else (lock.uri, lock.token),
        course=_course(job, workers),
        model=job.model,
        data=data,
        rates=rates,
        extractor=job.extractor,
        settings=settings_of(learner, job.extractor, job.labelled.tokenizer),
        freeze=tuple(optimiser.freeze),
        freeze_layers=optimiser.freeze_layers,
        ema_decay=optimiser.ema_decay,
        gradient_checkpointing=spec.cluster.gradient_checkpointing,
        fsdp=spec.cluster.parallel == "fsdp2",
    )


def _joining(job: Job) -> Joining | None:
    spec, tokenizer = job.spec, job.labelled.tokenizer
    if not spec.augmentation.concat_prob or tokenizer is None:
        return None
    most = round(spec.data.max_duration_s / job.extractor.frame_s)
    stride = job.start.config.total_stride
    return Joining(spec.augmentation.concat_prob, tokenizer.word_delimiter_token_id, most, stride)


def _window_frames(job: Job) -> int | None:
    """Half of what a node's disk holds, so that the next window comes while one is used; None: all fits."""
    width = job.extractor.num_mel_bins * job.extractor.stride
    most = int(job.spec.cluster.features_cache_gb * (1 << 30) / (2 * width))
    return None if int(job.labelled.train.index.frames.sum()) <= most else most // 2


def _course(job: Job, workers: Workers) -> Course:
    spec, optimiser, run = job.spec, job.spec.optimiser, job.spec.run
    tasks = spec.tasks or [MASKED_PREDICTION]
    metric = None if job.labelled.valid is None else spec.metric or main_metric(tasks[0])
    lengths = (optimiser.max_steps, optimiser.num_epochs, optimiser.max_minutes)
    return Course(
        seed=run.seed,
        identity=job.identity,
        weights={task: spec.model.task_weights.get(task, 1.0) for task in tasks},
        schedule=Schedule(
            optimiser.lr_scheduler, 1, optimiser.warmup_ratio, optimiser.hold_ratio, optimiser.final_lr_scale
        ),
        kept=Kept(run.keep_last, run.keep_best, metric, metric is not None and higher_is_better(metric)),
        packs_per_step=workers.most * optimiser.gradient_accumulation,
        layers=job.start.config.num_hidden_layers,
        layerdrop=job.start.config.layerdrop,
        margin=optimiser.margin if "embed" in tasks else None,
        autocast=torch.bfloat16 if spec.cluster.dtype == "bfloat16" else None,
        max_grad_norm=optimiser.max_grad_norm,
        freeze_encoder_steps=optimiser.freeze_encoder_steps,
        eval_steps=run.eval_steps,
        save_steps=run.save_steps,
        patience=run.patience,
        max_skipped=run.max_skipped_batches,
        max_steps=optimiser.max_steps,
        num_epochs=_DEFAULT_EPOCHS if lengths == (None, None, None) else optimiser.num_epochs,
        max_minutes=optimiser.max_minutes,
    )
