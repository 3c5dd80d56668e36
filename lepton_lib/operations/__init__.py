"""A run folder over time: its log is judged window by window, its model retrained or rolled back.

Knows run folders, the service's log and releases, and how notebooks are run; what is a signal and
when to act is `lepton_lib.monitoring`'s.
"""

from lepton_lib.errors import needs_extra

with needs_extra("ops", "lepton_lib.operations", "nbclient"):
    from lepton_lib.operations.journal import Journal
    from lepton_lib.operations.labels import LabelCount, attach_file
    from lepton_lib.operations.windows import monitor

__all__ = ["Journal", "LabelCount", "attach_file", "monitor"]
