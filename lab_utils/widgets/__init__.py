"""What the reader touches: factories that return a widget. No maths here."""
