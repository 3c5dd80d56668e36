"""A tiny loop: six notebooks named as the real ones that only write the files of their steps."""

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from lepton_lib.artefacts import OUTPUTS, STEPS

METRICS = {
    "00_environment": {},
    "01_data": {"rows_kept": 1000, "rows_dropped": 3},
    "02_training": {"model": "ensemble", "validation_loss": 0.5},
    "03_evaluation": {
        "metric": "auc",
        "value": 0.84,
        "low": 0.81,
        "high": 0.87,
        "gate_passed": True,
    },
    "04_deployment": {"latency_ms": 0.2, "latency_ms_p99": 0.41},
    "05_monitoring": {"drift": "none", "decision": "keep"},
}
PARAMETERS = (
    'case = "credit"  # which case\n'
    'run_dir = "../runs/credit"  # where results go\n'
    "seed = 0  # [0, 100]"
)
TRAINING = (
    "\nepochs = 3  # passes over the training rows [1, 1000]"
    "\nlr = 1e-3  # peak learning rate (0, 1]"
    '\nmodel = "mlp"  # one of: linear, mlp, ensemble\nshuffle = True'
)


def work(step, names):
    """The one cell that does a step's work."""
    earlier = STEPS[STEPS.index(step) - 1] if step != STEPS[0] else None
    read = f"step.input({OUTPUTS[earlier][0]!r})" if earlier else "pass"
    return (
        "from lepton_lib.artefacts import OUTPUTS, Run\n"
        f"parameters = dict({', '.join(f'{name}={name}' for name in names)})\n"
        f"step = Run(run_dir).start({step!r}, case=case, parameters=parameters)\n{read}\n"
        f"for name in OUTPUTS[{step!r}]:\n"
        "    step.write_json(name, [name, parameters])\n"
        f"step.finish(**{METRICS[step]!r})"
    )


def write_notebook(path, *cells):
    """A notebook of code cells, given as (id, source, *tags), or texts for Markdown."""
    path.parent.mkdir(parents=True, exist_ok=True)
    written = []
    for number, cell in enumerate(cells):
        if isinstance(cell, str):
            written.append(new_markdown_cell(cell, id=f"text-{number}"))
        else:
            name, source, *tags = cell
            written.append(new_code_cell(source, id=name, metadata={"tags": tags} if tags else {}))
    nbformat.write(new_notebook(cells=written), path)
    return path


def write_loop(folder, **extra):
    """The six notebooks; ``n02="..."`` puts a cell before the work of the step 02."""
    paths = []
    for step in STEPS:
        training = TRAINING if step == "02_training" else ""
        names = ["case", "seed", *(["epochs", "lr", "model", "shuffle"] if training else [])]
        before = [("before", extra[f"n{step[:2]}"])] if f"n{step[:2]}" in extra else []
        cells = [
            f"# {step}",
            ("parameters", PARAMETERS + training, "parameters"),
            *before,
            ("work", work(step, names)),
        ]
        paths.append(write_notebook(folder / "notebooks" / f"{step}.ipynb", *cells))
    return paths
