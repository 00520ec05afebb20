#!/usr/bin/env bash
# scikit-learn 1.9.1 with rich 15.0.0: importing sklearn.metrics changes the state of Python's global random generator.
#
# sklearn.metrics imports sklearn.callback, whose progress bar imports rich where it is installed, and rich.style draws
# 24 bits from `random` when it is imported. A program that sets its seed and imports a metric at its first evaluation
# has another random state than one that resumes with the metric already imported. Without rich the state is unchanged.
#
# Output seen:
#   with rich: changed
#   without rich: unchanged
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check scikit-learn==1.9.1 rich==15.0.0

state() {
  "$folder/venv/bin/python" - <<'PY'
import random

random.seed(0)
before = random.getstate()
import sklearn.metrics  # noqa: F401

print("unchanged" if random.getstate() == before else "changed")
PY
}

with=$(state)
"$folder/venv/bin/pip" uninstall --quiet --yes --disable-pip-version-check rich
without=$(state)
echo "with rich: $with"
echo "without rich: $without"
[ "$with" = changed ] && [ "$without" = unchanged ]
