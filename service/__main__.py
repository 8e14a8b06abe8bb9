"""`python -m service` is `labelstream`."""

from service.cli import main

main()
