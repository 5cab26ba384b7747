"""How predictions are scored, where several tasks share it; counts add up over ranks."""
