"""The nine generated cells: texts, scenes and pages."""
