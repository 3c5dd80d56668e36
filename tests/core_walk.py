"""Walks the core alone: a case is read, cleaned, split, trained, evaluated and watched for drift.

``python -m tests.core_walk [DISTRIBUTION ...]`` finds none of the distributions that are named. It
prints the AUC and, for each way out of the core, the error that names the missing extra. Knows the
library alone: it runs where nothing but ``pip install .`` was done.
"""

import importlib
import json
import sys
import tempfile
from importlib import metadata
from pathlib import Path


class Without:
    """A finder of modules and metadata that doesn't find some distributions."""

    def __init__(self, finder, distributions, modules):
        self.finder = finder
        self.distributions = distributions
        self.modules = modules

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, name, path=None, target=None):
        """The module's place, as the finder knows it; None for a package that is left out."""
        if name.split(".")[0] not in self.modules:
            return self.finder.find_spec(name, path, target)
        return None

    def find_distributions(self, context):
        """The metadata of what is installed, but for what is left out."""
        every = getattr(self.finder, "find_distributions", lambda _: ())(context)
        return (each for each in every if each.name not in self.distributions)


def walk():
    """The AUC on the test rows after two epochs, and the errors at the ways out of the core."""
    import torch

    from lepton_lib import evaluation, explanation, models, monitoring, plots, robustness, trainer
    from lepton_lib.artefacts import Run
    from lepton_lib.cases import load_case
    from lepton_lib.data import clean, encode, read_table, split
    from lepton_lib.errors import MissingExtraError

    plots.use_style()
    case = load_case("credit")
    parts = split(clean(read_table(case), case)[0], case, seed=0)
    train, validation, (inputs, labels) = (encode(part, case) for part in parts.values())
    model, _ = trainer.fit_model(case, train, validation, seed=0, epochs=2, progress=False)

    def probabilities(rows):
        with torch.no_grad():
            return model.probabilities(torch.from_numpy(rows)).numpy()

    _, metric = evaluation.case_metric(case)
    auc = metric(labels, probabilities(inputs))
    evaluation.bootstrap_interval(metric, labels, probabilities(inputs), n=20, seed=0)
    robustness.fgsm(model, inputs[:9], labels[:9], case=case, radius=0.1)
    explanation.shapley_values(lambda rows: probabilities(rows)[:, 1], inputs[:1], inputs[:9])
    monitoring.drift_report(parts["train"], parts["test"], case)
    figure, axes = plots.subplots()
    axes.plot(labels)
    errors = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        figure.savefig(folder / "labels.svg")
        step = Run(folder / "run").start("00_environment", case="credit", parameters={})
        step.write_json("charter.json", {})
        step.finish()
        parts["test"].to_parquet(folder / "test.parquet")
        models.save_model(model, weights=folder / "model", config=folder / "config.json")
        ways_out = {
            "export_onnx": lambda: models.export_onnx(model, folder / "model.onnx"),
            "log_dir": lambda: trainer.Trainer(model, log_dir=folder)._log().__enter__(),
            "serving": lambda: importlib.import_module("lepton_lib.serving"),
            "runs": lambda: importlib.import_module("lepton_lib.runs"),
            "operations": lambda: importlib.import_module("lepton_lib.operations"),
            "lepton": lambda: importlib.import_module("lepton_lib.__main__").main(),
        }
        for way, leave in ways_out.items():
            try:
                leave()
            except (MissingExtraError, SystemExit) as error:
                errors[way] = str(error)
    return {"auc": round(auc, 3), "errors": errors}


if __name__ == "__main__":
    left_out = set(sys.argv[1:])
    modules = {
        module
        for module, owners in metadata.packages_distributions().items()
        if left_out.issuperset(owners)
    }
    sys.meta_path[:] = [Without(finder, left_out, modules) for finder in sys.meta_path]
    print(json.dumps(walk()))
