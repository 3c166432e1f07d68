"""The report of a participant, with its figures.

Figures are made while the images are at hand; the reports are made afterwards, from
the output dataset alone, so they can be made again without the raw data.
"""
