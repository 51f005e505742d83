"""The page in the browser, `sddpm app`: interactive views of a model.

The computations of the views are in modules without gradio (`settings`, `drawing`, ...); their display is in `tabs`,
one file each. `page` combines the tabs and `server` serves the page. A new view is one module of each kind and a row in
`page.TABS`.
"""

import os

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # read when gradio is imported: sends no usage data
