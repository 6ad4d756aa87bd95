"""`python -m pfmsmt` is the `pfmsmt` command."""

from pfmsmt.commands.main import main

main()
