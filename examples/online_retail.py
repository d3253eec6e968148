"""Online Retail: the purchases of a British gift shop, as one table.

Source: D. Chen, Online Retail, UCI Machine Learning Repository 352, doi:10.24432/C5BW33, under
CC BY 4.0; described in Chen, Sain and Guo 2012.
"""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow.csv import ConvertOptions, read_csv

from examples.fetch import fetch, web

ADDRESS = "https://archive.ics.uci.edu/static/public/352/online+retail.zip"
COLUMNS = ["user_id", "item_id", "timestamp", "text"]
AS_TEXT = ConvertOptions(column_types={"user_id": pa.string(), "item_id": pa.string()})


def read() -> pa.Table:
    """Return purchases by known customers, oldest first: user_id, item_id, timestamp in seconds,
    text, and `price`, of one in pounds.

    Where `SANDERLING_DATA` has `online_retail/interactions.csv.gz` (user_id, item_id, timestamp,
    quantity) and `items.csv` (item_id, text), they are read instead; having no prices, the table
    has `pack`, the quantity that was bought.
    """
    own = Path(os.environ.get("SANDERLING_DATA", ".")) / "online_retail"
    if (own / "interactions.csv.gz").is_file():
        log = read_csv(own / "interactions.csv.gz", convert_options=AS_TEXT)
        log = log.join(read_csv(own / "items.csv", convert_options=AS_TEXT), "item_id")
        log = log.append_column("pack", log["quantity"]).select([*COLUMNS, "pack"])
    else:
        log = read_excel(fetch("online_retail/online_retail.zip", web(ADDRESS)))

    seconds = pc.cast(pc.cast(log["timestamp"], pa.timestamp("s")), pa.int64())
    log = log.set_column(2, "timestamp", seconds)

    # Two lines of one invoice for the same item are one purchase.
    rest = log.column_names[3:]
    once = log.group_by(COLUMNS[:3], use_threads=False).aggregate([(x, "first") for x in rest])
    once = once.select([*COLUMNS[:3], *(f"{name}_first" for name in rest)])
    order = [(name, "ascending") for name in ("timestamp", "user_id", "item_id")]
    return once.rename_columns(log.column_names).sort_by(order)


def read_excel(archive: Path) -> pa.Table:
    """Return the purchases in UCI's archive, without returns, postage and unknown customers."""
    from openpyxl import load_workbook

    with zipfile.ZipFile(archive) as unpacked:
        (name,) = (name for name in unpacked.namelist() if name.endswith(".xlsx"))
        sheet = load_workbook(unpacked.open(name), read_only=True).active
        rows = [
            (str(int(user)), str(item), time, str(text).strip(), float(price))
            for _, item, text, quantity, time, price, user, _ in sheet.iter_rows(
                min_row=2, max_col=8, values_only=True
            )
            # Codes of goods begin with five digits; POST, M and BANK CHARGES are none.
            if user and text and quantity > 0 and price > 0 and str(item)[:5].isdigit()
        ]
    return pa.table([list(column) for column in zip(*rows, strict=True)], [*COLUMNS, "price"])
