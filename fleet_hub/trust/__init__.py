"""Trust: the image and the director repository (TUF, Uptane 2.1) as folders of static files."""
