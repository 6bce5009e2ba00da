"""What the reader touches: factories that return a widget. No maths here."""

from .explorer import predict_first, reset_all

__all__ = ["predict_first", "reset_all"]
