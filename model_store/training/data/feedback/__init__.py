"""Feedback of a service as training rows: answers with their clicks and grades, added up."""
