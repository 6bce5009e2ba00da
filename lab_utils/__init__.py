"""LoRA Lab: the tested helpers behind the notebooks.

Import the module you need, for instance `from lab_utils.models import load_base`. Importing the package
itself costs nothing: torch and transformers are loaded by the functions that use them.
"""

__version__ = "0.1.0"
