"""The old address of `notebook.name_errors`, which IPython configurations of existing environments load."""

from .notebook.name_errors import install, load_ipython_extension, unload_ipython_extension

__all__ = ["install", "load_ipython_extension", "unload_ipython_extension"]
