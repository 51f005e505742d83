"""The page in the browser, `sddpm app`: views of a model at work.

What a view computes is in modules without gradio (`settings`, `drawing`); what it shows is in `tabs`, one file each,
which `page` puts together and `server` serves. A further view is one of each and a row in `page.TABS`.
"""

import os

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # read when gradio is imported: nothing is sent anywhere
