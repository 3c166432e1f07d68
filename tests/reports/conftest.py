"""The browser of the review's tests, for the pages of the reports."""

from tests.review.browser.conftest import browser, new_page

__all__ = ["browser", "new_page"]
