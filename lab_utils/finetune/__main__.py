"""`python -m lab_utils.finetune`: the same training as a page's, without a notebook."""

from .command import main

if __name__ == "__main__":
    raise SystemExit(main())
