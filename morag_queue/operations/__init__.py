"""One file a subject: observe → plan → apply. Operations return a model and print nothing."""
