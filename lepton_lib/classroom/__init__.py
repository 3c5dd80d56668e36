"""A class: its editions of the notebooks, work folders, progress, certificates, pacing and reports.

Knows the notebooks and the exercises; doesn't know data, models or what a step computes.
"""
