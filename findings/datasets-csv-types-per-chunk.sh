#!/usr/bin/env bash
# datasets 5.2.0 with pandas 3.1.1: load_dataset("csv") guesses types for every 10,000 rows anew, so that one class
# becomes two.
#
# A csv sorted by label, 10,000 rows of class `x` and then 10,000 of class `01`: the first chunk is text, the second is
# read as whole numbers and then turned into text, and `01` becomes `1`. Mixed into the first chunk the same class stays
# `01`, so the classes that a model learns depend on the order of the rows. `features` that name the column text avoid it.
#
# Output seen:
#   sorted by label: ['1', 'x']
#   sorted, one 01 first: ['01', '1', 'x']
#   with features: ['01', 'x']
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check datasets==5.2.0 pandas==3.1.1
cd "$folder"
HF_HUB_OFFLINE=1 HF_HOME="$folder/home" "$folder/venv/bin/python" - <<'PY' | tee output
import datasets

datasets.disable_progress_bars()


def classes(labels, **options):
    with open("rows.csv", "w") as file:
        file.write("text,label\n" + "".join(f"a text,{label}\n" for label in labels))
    rows = datasets.load_dataset("csv", data_files="rows.csv", split="train", cache_dir=f"cache{len(options)}", **options)
    return sorted(set(map(str, rows["label"])))


in_order = ["x"] * 10_000 + ["01"] * 10_000
print("sorted by label:", classes(in_order))
print("sorted, one 01 first:", classes(["01", *in_order]))
text = datasets.Features({"text": datasets.Value("string"), "label": datasets.Value("string")})
print("with features:", classes(["01", *in_order], features=text))
PY
diff output - <<'EXPECTED'
sorted by label: ['1', 'x']
sorted, one 01 first: ['01', '1', 'x']
with features: ['01', 'x']
EXPECTED
