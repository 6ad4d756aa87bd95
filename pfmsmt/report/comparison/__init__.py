"""The comparison of methods: inputs -> summaries -> tables, pictures -> page."""
