"""Pictures that are drawn mark by mark: the environment, its brushes, rasteriser, scores and SVG."""
