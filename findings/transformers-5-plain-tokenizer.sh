#!/usr/bin/env bash
# transformers 5.24.0: a plain fast tokenizer is saved under a class that transformers 4.57.6 does not have.
#
# save_pretrained writes "tokenizer_class": "TokenizersBackend", and after loading from a folder also how it was loaded
# ("is_local", "local_files_only"). transformers 4.57.6 refuses the folder; with "PreTrainedTokenizerFast" in its place,
# the name that such tokenizers had before, both versions load it.
#
# Output seen:
#   saved by 5.24.0 as TokenizersBackend, with is_local, local_files_only
#   4.57.6: ValueError: Tokenizer class TokenizersBackend does not exist or is not currently imported.
#   4.57.6, renamed: [2, 3, 0]
#   5.24.0, renamed: [2, 3, 0]
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export HF_HUB_OFFLINE=1 TRANSFORMERS_VERBOSITY=error
for version in 5.24.0 4.57.6; do
  python -m venv "$folder/$version"
  "$folder/$version/bin/pip" install --quiet --disable-pip-version-check "transformers==$version"
done
cd "$folder"
cat > make.py <<'PY'
import json

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

words = Tokenizer(models.WordLevel({"[UNK]": 0, "[PAD]": 1, "good": 2, "bad": 3}, unk_token="[UNK]"))
words.pre_tokenizer = pre_tokenizers.Whitespace()
PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]", pad_token="[PAD]").save_pretrained("plain")
AutoTokenizer.from_pretrained("plain").save_pretrained("again")
config = json.load(open("again/tokenizer_config.json"))
noted = [key for key in ("is_local", "local_files_only") if key in config]
print(f"saved by 5.24.0 as {config['tokenizer_class']}, with {', '.join(noted)}")
PY
cat > load.py <<'PY'
from transformers import AutoTokenizer

try:
    print(AutoTokenizer.from_pretrained("again")("good bad new")["input_ids"])
except ValueError as error:
    print(f"ValueError: {error}")
PY
{
  5.24.0/bin/python make.py
  echo "4.57.6: $(4.57.6/bin/python load.py 2>/dev/null | tail -1)"
  sed -i 's/TokenizersBackend/PreTrainedTokenizerFast/' again/tokenizer_config.json
  echo "4.57.6, renamed: $(4.57.6/bin/python load.py 2>/dev/null | tail -1)"
  echo "5.24.0, renamed: $(5.24.0/bin/python load.py 2>/dev/null | tail -1)"
} | tee output
diff output - <<'EXPECTED'
saved by 5.24.0 as TokenizersBackend, with is_local, local_files_only
4.57.6: ValueError: Tokenizer class TokenizersBackend does not exist or is not currently imported.
4.57.6, renamed: [2, 3, 0]
5.24.0, renamed: [2, 3, 0]
EXPECTED
