"""How many steps each experiment of a study makes in the time of another.

    python benchmarks/equal_time.py --config config/ablation.yaml [--like ccsd] [--rounds 5]

Steps of all experiments take turns in one process with one thread: batches of noise of the configured size, forward,
backward and optimizer. Each turn is a cycle of steps in which criticality is scored once. The median of the ratios of
CPU time gives the number of steps that cost as much as `train.steps` of the experiment named by `--like`.
"""

import argparse
from functools import partial
from pathlib import Path

import torch
from measure import Answer, machine, ratio, spread, table, take_turns, timed

from ccsd.config import load_config
from ccsd.config.schema import Config
from ccsd.distillation.objective import Objective
from ccsd.distillation.schedule import draw_step
from ccsd.model.plugin import build_network

LEAST_CYCLE = 6
"""Steps timed together: several draws, because they differ in cost."""


class Training:
    """The steps of one experiment."""

    def __init__(self, config: Config, cycle: int) -> None:
        torch.manual_seed(0)
        self.config, self.cycle, self.done = config, cycle, 0
        net = build_network(config.model, config.task)
        self.objective = Objective(net, config.distillation, config.task, precision=config.train.precision)
        self.optimizer = torch.optim.AdamW(self.objective.parameters(), lr=1e-4)
        shape = (config.train.batch_size, *config.train.patch)
        self.available = torch.ones(shape[0], len(config.task.modalities), dtype=torch.bool)
        self.image = torch.randn(*self.available.shape, *shape[1:])
        self.label = torch.randint(0, len(config.task.classes) + 1, shape)

    def steps(self) -> None:
        """Take the steps of one cycle."""
        for _ in range(self.cycle):
            samples = range(len(self.available))
            drawn = draw_step(
                self.config.distillation,
                self.config.task,
                self.available,
                seed=0,
                step=self.done,
                total_steps=self.config.train.steps,
                samples=samples,
            )
            self.objective(self.image, self.label, self.available, drawn)["loss"].backward()
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.done += 1

    def time(self) -> Answer:
        """Return the time of a cycle."""
        return timed(self.steps)


def main() -> None:
    """Time the experiments in turns and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True, help="configuration of the study")
    parser.add_argument("--like", default="ccsd", help="experiment whose time the others get")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    names = list(load_config(options.config).experiments)
    configs = {name: load_config(options.config, experiment=name) for name in names}
    cycle = max(LEAST_CYCLE, *(2 * c.distillation.every_n for c in configs.values()))
    trainings = {name: Training(config, cycle) for name, config in configs.items()}
    for training in trainings.values():
        training.steps()
    found = take_turns({name: partial(training.time) for name, training in trainings.items()}, options.rounds)
    steps = configs[options.like].train.steps
    rows = []
    for name in names:
        share = ratio(found, name, options.like, "cpu")
        least, most = spread(found, name, options.like, "cpu")
        rows.append((name, f"{share:.2f}", f"{least:.2f} to {most:.2f}", f"{steps / share:.0f}"))
    print(f"{machine()}; one thread")
    print(
        table(
            [
                (
                    "experiment",
                    f"CPU time / {options.like}",
                    "range",
                    f"steps in the time of {steps} of {options.like}",
                ),
                *rows,
            ]
        )
    )


if __name__ == "__main__":
    main()
