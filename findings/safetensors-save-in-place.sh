#!/usr/bin/env bash
# safetensors: saving again writes into the old file up to some version, and puts a new file in its place later.
#
# save_file of 0.5.3 opens the existing file and writes into it: whoever has it open, or mapped into memory, sees numbers
# of the new model among those of the old one. save_file of 0.8.0 writes another file and renames it: an open file stays
# as it was. transformers 5.0.0 asks for 0.4.3 or later, transformers 5.24.0 for 0.8.0: both are in use.
#
# Output seen:
#   0.5.3: a reader that opened the file before finds 2.0 in it; the same file
#   0.8.0: a reader that opened the file before finds 1.0 in it; another file
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat > "$folder/save_twice.py" <<'PY'
import os
import struct

import numpy
from safetensors import __version__
from safetensors.numpy import save_file

save_file({"weight": numpy.full(4, 1.0, numpy.float32)}, "model.safetensors")
with open("model.safetensors", "rb") as reader:
    before = os.fstat(reader.fileno()).st_ino
    save_file({"weight": numpy.full(4, 2.0, numpy.float32)}, "model.safetensors")
    reader.seek(-4, os.SEEK_END)
    (last,) = struct.unpack("<f", reader.read(4))
same = os.stat("model.safetensors").st_ino == before
found = "the same file" if same else "another file"
print(f"{__version__}: a reader that opened the file before finds {last} in it; {found}")
PY
cd "$folder"
for version in 0.5.3 0.8.0; do
  python -m venv "$version"
  "$version/bin/pip" install --quiet --disable-pip-version-check "safetensors==$version" "numpy==2.2.6"
  "$version/bin/python" save_twice.py
done | tee output
diff output - <<'EXPECTED'
0.5.3: a reader that opened the file before finds 2.0 in it; the same file
0.8.0: a reader that opened the file before finds 1.0 in it; another file
EXPECTED
