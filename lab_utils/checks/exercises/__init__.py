"""The exercises of each page: contract, cases, named mistakes, hints, solution."""
