#!/usr/bin/env bash
# transformers 5.24.0: a GPT-2 or RoBERTa tokenizer reads text that is split into words (is_split_into_words=True) as if no
# word had a space before it, without a word. transformers 4.57.1 refuses that: add_prefix_space=True is needed.
#
# Byte-level tokenizers know a word that follows a space by other tokens (a mark before it) than one that does not. Given
# `["the", "cat"]`, version 5 makes the tokens of `the` and `cat` without the mark, which occur inside of words in the text
# that such models are pretrained on. With add_prefix_space=True each word gets its mark. Scripts for token classification
# that lean on the error of version 4 train on other tokens now.
#
# Output seen:
#   4.57.1 split: AssertionError
#   4.57.1 split, add_prefix_space: ['_the', '_cat']
#   5.24.0 split: ['the', 'cat']
#   5.24.0 split, add_prefix_space: ['_the', '_cat']
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
cat > split.py <<'PY'
import json

import transformers
from transformers import GPT2TokenizerFast

mark = "\u0120"  # of a space before a word
words = ["the", "cat"]
letters = sorted({letter for word in words for letter in word} | {mark})
merges = [("t", "h"), ("th", "e"), ("c", "a"), ("ca", "t"), (mark, "the"), (mark, "cat")]
tokens = [*letters, *("".join(pair) for pair in merges), "<|endoftext|>"]
json.dump({token: number for number, token in enumerate(tokens)}, open("vocab.json", "w"))
open("merges.txt", "w").write("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
for name, options in (("split", {}), ("split, add_prefix_space", {"add_prefix_space": True})):
    tokenizer = GPT2TokenizerFast.from_pretrained(".", **options)
    try:
        ids = tokenizer(words, is_split_into_words=True)["input_ids"]
        found = [token.replace(mark, "_") for token in tokenizer.convert_ids_to_tokens(ids)]
    except AssertionError as error:
        found = type(error).__name__
    print(f"{transformers.__version__} {name}: {found}")
PY
for version in 4.57.1 5.24.0; do
    python -m venv "venv-$version"
    "venv-$version/bin/pip" install --quiet --disable-pip-version-check "transformers==$version"
    HF_HUB_OFFLINE=1 HF_HOME="$folder/home" "venv-$version/bin/python" split.py 2> errors | tee -a output
done
diff output - <<'EXPECTED'
4.57.1 split: AssertionError
4.57.1 split, add_prefix_space: ['_the', '_cat']
5.24.0 split: ['the', 'cat']
5.24.0 split, add_prefix_space: ['_the', '_cat']
EXPECTED
