"""The browser's fixtures. Where selenium is missing, the tests that use them are skipped."""

import contextlib

with contextlib.suppress(ImportError):
    from tests.export.browser import browser, classifier, folder, page, runtime, url  # noqa: F401
