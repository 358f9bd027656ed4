"""One file a subject: observe → plan → apply. Operations take a broker and settings, return a model and print nothing."""
