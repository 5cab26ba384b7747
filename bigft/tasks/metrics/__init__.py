"""What evaluation counts and how it is scored; counts add up over ranks."""
