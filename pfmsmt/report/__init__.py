"""Reports: the comparison of methods and the data card.

Both put together a `page.Page` of `core.display` tables and of pictures, and `page.write_page` writes it as Markdown
and as HTML.
"""
