"""What people look at: figures, the report of a participant, the page of a cohort.

Figures are made while the images are at hand; the reports are made afterwards, from
the output dataset alone, so they can be made again without the raw data.
"""
