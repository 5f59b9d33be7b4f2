"""The rating study: the scale, the store of ratings, the curve through them, the rest of the statistics, simulated raters."""

LOWEST, HIGHEST = 0, 5  # the scale of footnote 3: out of domain, extremely creative; 1 is the default image
