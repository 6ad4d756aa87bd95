"""The comparison of methods, built from what evaluation and training left on disk.

loading -> results -> means -> tables, pictures, plotdata -> markdown, terminal, page -> writing
"""
