"""PEFT and transformers warn about each other here; that is not what these tests are about."""

import pytest


def pytest_itemcollected(item: pytest.Item) -> None:
    item.add_marker(pytest.mark.filterwarnings("ignore"))
