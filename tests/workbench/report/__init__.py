"""A run's pages and drawings for the browser: report.html, timeline.html and linear.svg.

report.html and its charts need Bokeh. `drawing`, `timeline` and `linear` need only Python.
"""
