"""The nine generated cells: texts, scenes and pages that are drawn here."""
