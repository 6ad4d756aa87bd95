"""The user's own log, as CSV or Parquet."""
