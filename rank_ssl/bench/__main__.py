"""Lets `python -m rank_ssl.bench` run the command."""

from rank_ssl.bench import main

main()
