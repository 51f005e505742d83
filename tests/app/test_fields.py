"""What the text of a field means."""

import pytest

from sddpm.app.tabs.fields import number
from sddpm.errors import UserError


@pytest.mark.parametrize(
    ("text", "value"), [("", None), (None, None), (" 12 ", 12), ("1e3", 1000), ("1.5", 1.5), ("1e300", 1e300)]
)
def test_numbers(text, value):
    found = number("Evaluations", text)
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize("text", ["many", "1,5", "0x10", "1 2"])
def test_no_numbers(text):
    with pytest.raises(UserError, match="Evaluations: a number is needed, not"):
        number("Evaluations", text)
