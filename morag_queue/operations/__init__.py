"""One verb a file: observe → decide → apply. They take a broker and settings, and give a model; they print nothing."""
