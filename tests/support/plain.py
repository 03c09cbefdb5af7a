"""The training that ours must equal: plain PyTorch, one process, the whole batch at once."""

from pathlib import Path

import torch
from torch import Tensor

from ccsd.config import Config
from ccsd.data import PatchReader, PatchStream, augment
from ccsd.distillation.objective import Objective
from ccsd.distillation.schedule import draw_step
from ccsd.model.net import SharedSpecificNet
from ccsd.training.engine import learning_rate
from preprocess.splits import read_split


def plain_training(
    config: Config, data: Path, start: SharedSpecificNet | None = None
) -> tuple[list[float], dict[str, Tensor]]:
    """Return the loss of every step, and the weights at the end, or their moving average.

    With a network of the same task to start from, all of its weights are taken.
    """
    settings = config.train
    torch.manual_seed(settings.seed)
    objective = Objective(
        SharedSpecificNet(config.model, config.task),
        config.distillation,
        config.task,
        precision=settings.precision,
    )
    if start is not None:
        objective.net.load_state_dict(start.state_dict())
    optimizer: torch.optim.Optimizer = torch.optim.AdamW(objective.parameters(), weight_decay=settings.weight_decay)
    if settings.optimizer == "sgd":
        decay = settings.weight_decay
        optimizer = torch.optim.SGD(objective.parameters(), momentum=0.99, nesterov=True, weight_decay=decay)
    averages = {name: value.clone() for name, value in objective.net.state_dict().items()}
    samples = range(settings.batch_size)
    reader = PatchReader(
        data,
        read_split(data).train,
        modalities=config.task.modalities,
        patch=settings.patch,
        global_batch=settings.batch_size,
        rank=0,
        world=1,
        seed=settings.seed,
        foreground=settings.foreground,
    )
    stream = PatchStream(reader, workers=0)
    losses = []
    for step in range(settings.steps):
        batch = next(stream)
        keys = [(settings.seed, step, sample) for sample in samples]
        image, label = augment(batch.image.float(), batch.label, batch.available, keys)
        draw = draw_step(
            config.distillation,
            config.task,
            batch.available,
            seed=settings.seed,
            step=step,
            total_steps=settings.steps,
            samples=samples,
        )
        outputs = objective(image, label, batch.available, draw)
        loss = outputs["loss"]
        if "scored" in outputs:
            objective.learn_criticality(outputs["scored"])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(objective.parameters(), settings.clip)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, settings) * (1 if start is None else settings.init_rate)
        before = {name: value.clone() for name, value in objective.net.state_dict().items()}
        optimizer.step()
        if step < settings.freeze * settings.steps:
            encoders = {name: v for name, v in before.items() if name.startswith(("shared.", "specific."))}
            objective.net.load_state_dict({**objective.net.state_dict(), **encoders})
        optimizer.zero_grad()
        losses.append(loss.item())
        kept = min(settings.ema, (step + 1) / (step + 10))
        weights = objective.net.state_dict()
        averages = {name: kept * old + (1 - kept) * weights[name] for name, old in averages.items()}
    stream.close()
    return losses, averages if settings.ema else objective.net.state_dict()
