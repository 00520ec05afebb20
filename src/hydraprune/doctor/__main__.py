"""`python -m hydraprune.doctor`: for when not even the command line can be imported."""

import sys

from hydraprune.doctor.command import doctor

raise SystemExit(doctor(sys.argv[1:]))
