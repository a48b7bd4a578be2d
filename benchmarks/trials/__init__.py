"""Registrations of shots of the second simulator, and what they come to."""
