"""The service: a model packaged, verified, asked over HTTP, and every answer kept.

Knows cases and service folders; the part that answers needs neither torch nor pandas.
"""

from lepton_lib.serving.log import PredictionLog, attach_labels, read_log

__all__ = ["PredictionLog", "attach_labels", "read_log"]
