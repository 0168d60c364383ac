"""`python -m odc_stats_gpu`."""

import sys

from odc_stats_gpu.cli import main

sys.exit(main())
