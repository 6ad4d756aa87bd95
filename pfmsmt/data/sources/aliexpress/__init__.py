"""AliExpress: the published raw files, and the joined form."""
