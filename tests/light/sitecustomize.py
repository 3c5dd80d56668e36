"""Read by every Python that starts with this folder on PYTHONPATH: what is heavy can't be imported.

For tests that start `lepton` as a process of its own on notebooks that need none of it: the server
of their kernels would spend more time on its imports than all the rest takes.
"""

import sys

for name in ("torch", "pandas", "pyarrow", "sklearn"):
    sys.modules[name] = None
