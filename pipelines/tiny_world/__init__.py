"""A generated world of talking faces in which the truth of every clip is known."""
