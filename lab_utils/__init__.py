"""LoRA Lab: the tested helpers behind the notebooks.

Import the module you need, for instance `from lab_utils.models import load_base`. Importing the package
itself costs nothing: torch and transformers are loaded by the functions that use them. In a notebook, and there only,
it also lets a NameError say which cell to run (`notebook.name_errors`): every page's first cell imports something from
here. And cells may begin with `%%needs` (`notebook.extras`).
"""

import sys

__version__ = "0.1.0"

if "IPython" in sys.modules:
    from .notebook import extras, name_errors

    name_errors.install()
    if _shell := getattr(sys.modules["IPython"], "get_ipython", lambda: None)():  # not there yet while IPython loads
        extras.load_ipython_extension(_shell)
