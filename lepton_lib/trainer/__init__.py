"""Training: the one loop, and the recipe that fits a case's model with no number to set."""

from lepton_lib.trainer.fitting import fit_model
from lepton_lib.trainer.loop import History, Loss, Trainer, task_loss

__all__ = ["History", "Loss", "Trainer", "fit_model", "task_loss"]
