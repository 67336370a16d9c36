"""Settings for every test, the kernels in which nbval runs the chapters included."""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "code" / "tools"))  # not a package: tests import its modules by name
os.environ["TQDM_DISABLE"] = "1"  # as in code/tools/notebooks.py: no progress bar in an output
os.environ.pop("MPLBACKEND", None)  # kernels draw into the notebook
