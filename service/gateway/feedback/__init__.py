"""Feedback: clicks and grades on earlier answers, joined with them and kept in a folder."""
