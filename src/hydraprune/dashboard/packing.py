"""A large page with its contents compressed; the browser unpacks them."""

from __future__ import annotations

import base64
import gzip
import json
from typing import Any

# Characters from which a page is packed: smaller ones can be read, and searched, without a browser.
LARGE = 3_000_000

_DATA = '<script type="application/json" id="data">'


def packed(page: str, data: Any) -> str:
    """The page with what is in `<main>`, and the data of its figures, as gzip in base64.

    Args:
        page: as rendered.
        data: what its data element holds.
    """
    before, rest = page.split("<main>", 1)
    main, after = rest.split("</main>", 1)
    start = after.index(_DATA)
    end = after.index("</script>", start)
    contents = json.dumps({"main": main, "page": data}, allow_nan=False, separators=(",", ":")).encode()
    # Without a time, so that equal pages have equal bytes.
    text = base64.b64encode(gzip.compress(contents, 9, mtime=0)).decode()
    element = f'<script type="application/gzip" id="data">{text}'
    return f"{before}<main></main>{after[:start]}{element}{after[end:]}"
