"""The method on other frameworks than Kandinsky (S3 of the paper): models that draw in one step and have no prior."""
