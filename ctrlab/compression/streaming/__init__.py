from ctrlab.compression.streaming.compress import StreamedTable, compress_table
from ctrlab.compression.streaming.tables import StoredTable, open_stored_table

__all__ = ["StoredTable", "StreamedTable", "compress_table", "open_stored_table"]
