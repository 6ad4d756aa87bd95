"""What every room may use: errors, types, named arrays, metrics, files and the console."""
