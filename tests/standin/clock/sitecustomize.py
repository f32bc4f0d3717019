"""Puts a process's wall clock wrong by `STANDIN_CLOCK_OFFSET_S` seconds. Python imports it by its name before all else."""

import os
import time

_offset_s = float(os.environ.get("STANDIN_CLOCK_OFFSET_S", "0"))
_true_time = time.time

time.time = lambda: _true_time() + _offset_s
